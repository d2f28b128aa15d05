"""`lq notify add`: what it writes, what it refuses, and that no output contains the URL."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.settings import load_settings
from tests.harness import BESIDE_PYTHON, Answer, InProcess
from tests.integration.loopback import Endpoint, free_address

SECRET = "hush-path"
COMMENTED = """\
# my settings
slots: 2  # two at a time
notify:
  digest: "07:00"
  services:
    # the phone
    - url: json://127.0.0.1:1/first  # do not touch
      name: phone

# the end
disk: {floor: 9GB}
"""


@pytest.fixture
def lq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InProcess:
    """Give lq on a new home."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return InProcess(tmp_path / "home", NO_PROXY="127.0.0.1")


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """Give a service that receives messages."""
    with Endpoint() as server:
        yield server


def written(lq: InProcess, text: str, mode: int = 0o600) -> Path:
    """Write settings.yaml."""
    lq.home.mkdir(mode=0o700)
    file = lq.home / "settings.yaml"
    file.write_text(text)
    file.chmod(mode)
    return file


def keeps_secret(answer: Answer) -> Answer:
    """Assert that an answer has no part of the URL."""
    assert SECRET not in answer.out + answer.err
    return answer


def test_added_service_is_tested_and_listed(lq: InProcess, endpoint: Endpoint) -> None:
    url = f"json://{endpoint.address}/{SECRET}"
    keeps_secret(lq("notify", "add", url, "--name", "home", "--tag", "mine", "--on", "failed", "--on", "digest"))
    assert [path for path, _ in endpoint.received] == [f"/{SECRET}"]
    settings = load_settings(lq.home / "settings.yaml")
    (service,) = settings.notify.services
    assert (service.url.get_secret_value(), service.name, service.tags) == (url, "home", ("mine",))
    assert service.on == ("failed", "digest")
    assert stat.S_IMODE((lq.home / "settings.yaml").stat().st_mode) == 0o600
    keeps_secret(lq("notify", "list"))
    keeps_secret(lq("notify", "test"))
    assert len(endpoint.received) == 2


def test_comments_and_other_keys_stay(lq: InProcess, endpoint: Endpoint) -> None:
    file = written(lq, COMMENTED)
    lq("notify", "add", f"json://{endpoint.address}/{SECRET}")
    kept = [line for line in file.read_text().splitlines(keepends=True) if SECRET not in line]
    assert "".join(kept) == COMMENTED
    assert [service.name for service in load_settings(file).notify.services] == ["phone", None]


def test_private_mode_is_set_and_link_kept(lq: InProcess, tmp_path: Path) -> None:
    file = written(lq, "slots: 2\n", mode=0o644)
    real = file.rename(tmp_path / "dotfiles.yaml")
    file.symlink_to(real)
    lq("notify", "add", f"json://127.0.0.1:1/{SECRET}", "--no-test")
    assert file.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    assert load_settings(file).slots == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "slots: 1",
        "notify:\n",
        "notify: {}\n",
        "notify: {desktop: true}",
        "notify:\n  services: []\n",
    ],
)
def test_service_is_added_to_any_form(lq: InProcess, text: str) -> None:
    file = written(lq, text)
    for count in (1, 2):
        keeps_secret(lq("notify", "add", f"json://127.0.0.1:1/{SECRET}{count}", "--no-test"))
        assert len(load_settings(file).notify.services) == count


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        ((SECRET,), 2, "Apprise URL"),
        ((f"ntyf://{SECRET}",), 2, "not understood"),
        ((f"json://127.0.0.1:1/{SECRET}", f"json://{SECRET}"), 2, "unexpected"),
        ((f"json://127.0.0.1:1/{SECRET}", "--on", "finishd"), 2, "finished"),
        ((f"json://127.0.0.1:1/{SECRET}", "--name", "phone", "--no-test"), 2, "another service"),
        (("json://127.0.0.1:1/first/", "--no-test"), 5, "service phone"),
        (("{refused}",), 6, "--no-test"),
        ((), 2, "URL"),
        (("-",), 2, "URL"),
    ],
)
def test_refused_service_changes_nothing(lq: InProcess, words: tuple[str, ...], code: int, part: str) -> None:
    file = written(lq, COMMENTED)
    url = f"json://{free_address()}/{SECRET}"
    answer = keeps_secret(lq("notify", "add", *(word.replace("{refused}", url) for word in words), expect=code))
    assert (answer.out, answer.err.count("\n")) == ("", 1)
    assert part in answer.err
    assert file.read_text() == COMMENTED


@pytest.mark.parametrize(
    "words", [("notify", f"ntfy://{SECRET}"), (f"ntfy://{SECRET}",), ("submit", f"--x=a://{SECRET}")]
)
def test_misplaced_url_is_not_repeated(lq: InProcess, words: tuple[str, ...]) -> None:
    assert keeps_secret(lq(*words, expect=2)).err.count("\n") == 1


def test_broken_settings_stay_as_they_are(lq: InProcess) -> None:
    file = written(lq, "slots: many\n")
    answer = keeps_secret(lq("notify", "add", f"json://127.0.0.1:1/{SECRET}", "--no-test", expect=2))
    assert f"{file}:1" in answer.err
    assert file.read_text() == "slots: many\n"


def test_url_is_read_from_stdin(lq: InProcess) -> None:
    done = subprocess.run(
        [BESIDE_PYTHON / "lq", "notify", "add", "-", "--no-test", "--json"],
        input=f"json://127.0.0.1:1/{SECRET}\n",
        capture_output=True,
        text=True,
        env=lq.environment,
        timeout=60,
        check=True,
    )
    assert SECRET not in done.stdout + done.stderr
    assert load_settings(lq.home / "settings.yaml").notify.services[0].url.get_secret_value().endswith(SECRET)
