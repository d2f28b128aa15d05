"""Desktop banners, with stand-ins for osascript and notify-send on PATH that record their arguments."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from orchestrator.notify import desktop

NASTY = 'job "; do shell script "touch /tmp/x" & $(id) `id` \\ \' <b>&'


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that is the whole PATH."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def stand_in(folder: Path, name: str, *, code: int = 0, sleeps: bool = False) -> Path:
    """Create a command that writes its arguments to a file, and return the file."""
    recorded = folder / f"{name}.json"
    rest = "import time; time.sleep(60)" if sleeps else f"sys.exit({code})"
    text = f"#!{sys.executable}\nimport json, sys\njson.dump(sys.argv[1:], open({str(recorded)!r}, 'w'))\n{rest}\n"
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return recorded


def show(
    system: str, *, title: str = "lq: t", body: str = "b", urgent: bool = False, timeout_s: float = 20
) -> str | None:
    return desktop.show(title, body, urgent=urgent, timeout_s=timeout_s, system=system)


def test_macos_text_is_passed_as_arguments(tools: Path) -> None:
    recorded = stand_in(tools, "osascript")
    assert show("darwin", title=f"lq: {NASTY}", body=f"{NASTY}\nsecond line") is None
    *script, title, body = json.loads(recorded.read_text())
    assert script == [
        "-e",
        "on run argv",
        "-e",
        "display notification (item 2 of argv) with title (item 1 of argv)",
        "-e",
        "end run",
    ]
    assert (title, body) == (f"lq: {NASTY}", f"{NASTY}\nsecond line")


def test_linux_text_is_escaped(tools: Path) -> None:
    recorded = stand_in(tools, "notify-send")
    assert show("linux", title=f"lq: {NASTY}", body="--help <b>&", urgent=True) is None
    assert json.loads(recorded.read_text()) == [
        "--app-name=lq",
        "--urgency=critical",
        "--",
        f"lq: {NASTY}",
        "--help &lt;b&gt;&amp;",
    ]


def test_long_text_is_cut(tools: Path) -> None:
    recorded = stand_in(tools, "notify-send")
    assert show("linux", body="x" * 100_000) is None
    assert json.loads(recorded.read_text())[-1] == "x" * 399 + "…"


@pytest.mark.parametrize(("system", "name"), [("darwin", "osascript"), ("linux", "notify-send")])
def test_errors_are_returned(tools: Path, system: str, name: str) -> None:
    assert show(system) == f"{name} is not installed"
    stand_in(tools, name, code=1)
    assert show(system) == f"{name} failed (no desktop?)"
    stand_in(tools, name, sleeps=True)
    assert show(system, timeout_s=0.5) == "timed out"
    (tools / name).chmod(0o644)
    assert show(system) == "failed"


def test_null_character_is_an_error(tools: Path) -> None:
    stand_in(tools, "notify-send")
    assert show("linux", body="a\0b") == "failed"
