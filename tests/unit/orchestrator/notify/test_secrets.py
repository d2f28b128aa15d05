"""Secrets from a keyring: a real one in a file (keyrings.alt), and none."""

from __future__ import annotations

import builtins
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyring.backends.fail import Keyring
from keyrings.alt.file import PlaintextKeyring

from jobs.model.errors import SecretMissing
from orchestrator.notify.secrets import fill_in


@pytest.fixture(autouse=True)
def keyring_file(tmp_path: Path) -> Iterator[None]:
    """Let keyring keep its secrets in a file below `tmp_path`."""
    backend = PlaintextKeyring()  # type: ignore[no-untyped-call]
    backend.file_path = str(tmp_path / "keyring.cfg")
    before = keyring.get_keyring()
    keyring.set_keyring(backend)
    yield
    keyring.set_keyring(before)


def test_references_are_filled_in() -> None:
    keyring.set_password("lq", "ntfy topic", "hush-topic")
    keyring.set_password("mail/server", "me@example.org", "hush-word")
    assert fill_in("ntfys://${keyring:lq/ntfy topic}") == "ntfys://hush-topic"
    assert fill_in("mailtos://me:${keyring:mail/server/me@example.org}@x.org") == "mailtos://me:hush-word@x.org"


def test_missing_secret_error_hides_names() -> None:
    with pytest.raises(SecretMissing) as caught:
        fill_in("ntfys://${keyring:hush/hush}")
    assert "hush" not in str(caught.value)


def test_keyring_loaded_for_references_only() -> None:
    code = "import sys; from orchestrator.notify.secrets import fill_in; fill_in('json://x')"
    code += "; sys.exit('keyring' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_missing_package_error(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "keyring":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SecretMissing, match=r"pip install 'lq\[keyring\]'"):
        fill_in("ntfys://${keyring:a/b}")


def test_locked_keyring_error() -> None:
    keyring.set_keyring(Keyring())  # type: ignore[no-untyped-call]
    with pytest.raises(SecretMissing, match="cannot be opened"):
        fill_in("ntfys://${keyring:a/b}")
