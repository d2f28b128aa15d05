"""Secrets out of a keyring: a real one in a file (keyrings.alt), and none at all."""

from __future__ import annotations

import builtins
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.model.errors import SecretMissing
from orchestrator.notify.secrets import filled


def keep(service: str, user: str, secret: str) -> None:
    """Put a secret into the keyring."""
    import keyring

    keyring.set_password(service, user, secret)


@pytest.fixture
def keyring_file(tmp_path: Path) -> Iterator[None]:
    """Let keyring keep its secrets in a file below `tmp_path`."""
    import keyring
    from keyrings.alt.file import PlaintextKeyring

    backend = PlaintextKeyring()  # type: ignore[no-untyped-call]
    backend.file_path = str(tmp_path / "keyring.cfg")
    before = keyring.get_keyring()
    keyring.set_keyring(backend)

    yield
    keyring.set_keyring(before)


@pytest.mark.usefixtures("keyring_file")
def test_a_reference_becomes_the_secret() -> None:
    keep("lq", "ntfy topic", "hush-topic")
    keep("mail/server", "me@example.org", "hush-word")
    assert filled("ntfys://${keyring:lq/ntfy topic}") == "ntfys://hush-topic"
    assert filled("mailtos://me:${keyring:mail/server/me@example.org}@x.org") == "mailtos://me:hush-word@x.org"


@pytest.mark.usefixtures("keyring_file")
def test_what_is_not_there_is_said_without_a_name() -> None:
    with pytest.raises(SecretMissing, match=r"^its secret is not in the keyring$"):
        filled("ntfys://${keyring:hush/hush}")


def test_a_url_without_a_reference_loads_no_keyring() -> None:
    code = "import sys; from orchestrator.notify.secrets import filled; filled('json://x')"
    code += "; sys.exit('keyring' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "keyring":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SecretMissing, match=r"needs the package keyring \(pip install 'lq\[keyring\]'\)"):
        filled("ntfys://${keyring:a/b}")


def test_a_keyring_that_cannot_be_opened_is_said() -> None:
    import keyring
    from keyring.backends.fail import Keyring

    before = keyring.get_keyring()
    keyring.set_keyring(Keyring())  # type: ignore[no-untyped-call]
    try:
        with pytest.raises(SecretMissing, match="the keyring cannot be opened"):
            filled("ntfys://${keyring:a/b}")
    finally:
        keyring.set_keyring(before)
