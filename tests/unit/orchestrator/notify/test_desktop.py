"""Banners: the text reaches osascript and notify-send as arguments. Stand-ins on PATH write down what they get."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from orchestrator.notify import desktop

NASTY = 'job "; do shell script "touch /tmp/x" & $(id) `id` \\ \' <b>&'


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that is all of PATH."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def stand_in(folder: Path, name: str, *, code: int = 0, sleeps: bool = False) -> Path:
    """Put a command there that writes its arguments into a file, which is returned."""
    said = folder / f"{name}.json"
    rest = "import time; time.sleep(60)" if sleeps else f"sys.exit({code})"
    text = f"#!{sys.executable}\nimport json, sys\njson.dump(sys.argv[1:], open({str(said)!r}, 'w'))\n{rest}\n"
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return said


def show(
    system: str, *, title: str = "lq: t", body: str = "b", urgent: bool = False, timeout_s: float = 20
) -> str | None:
    return desktop.show(title, body, urgent=urgent, timeout_s=timeout_s, system=system)


def test_macos_gets_the_text_as_arguments_behind_a_script_that_never_changes(tools: Path) -> None:
    said = stand_in(tools, "osascript")
    assert show("darwin", title=f"lq: {NASTY}", body=f"{NASTY}\nsecond line") is None
    *script, title, body = json.loads(said.read_text())
    assert script == [
        "-e",
        "on run argv",
        "-e",
        "display notification (item 2 of argv) with title (item 1 of argv)",
        "-e",
        "end run",
    ]
    assert (title, body) == (f"lq: {NASTY}", f"{NASTY}\nsecond line")


def test_linux_gets_the_text_as_arguments_and_no_markup_in_it(tools: Path) -> None:
    said = stand_in(tools, "notify-send")
    assert show("linux", title=f"lq: {NASTY}", body="--help <b>&", urgent=True) is None
    assert json.loads(said.read_text()) == [
        "--app-name=lq",
        "--urgency=critical",
        "--",
        f"lq: {NASTY}",
        "--help &lt;b&gt;&amp;",
    ]


def test_a_long_text_is_cut(tools: Path) -> None:
    said = stand_in(tools, "notify-send")
    assert show("linux", body="x" * 100_000) is None
    assert json.loads(said.read_text())[-1] == "x" * 399 + "…"


@pytest.mark.parametrize(("system", "name"), [("darwin", "osascript"), ("linux", "notify-send")])
def test_what_went_wrong_is_said(tools: Path, system: str, name: str) -> None:
    assert show(system) == f"{name} is not installed"
    stand_in(tools, name, code=1)
    assert show(system) == f"{name} failed (no desktop?)"
    stand_in(tools, name, sleeps=True)
    assert show(system, timeout_s=0.5) == "timed out"
    (tools / name).chmod(0o644)
    assert show(system) == "failed"


def test_a_text_with_a_null_character_is_refused_and_not_raised(tools: Path) -> None:
    stand_in(tools, "notify-send")
    assert show("linux", body="a\0b") == "failed"
