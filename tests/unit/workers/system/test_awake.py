"""Keeping the machine awake, with a stand-in for the system's tool on PATH that writes down what it is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import lives, until
from workers.system.awake import TOOL, Awake, command

STAND_IN = """#!{python}
import os, sys
open({notes!r} + ".new", "w").write("\\n".join([str(os.getpid()), *sys.argv[1:]]))
os.rename({notes!r} + ".new", {notes!r})
{then}
"""
HOLD = "os.execvp('tail', [word for word in sys.argv[sys.argv.index('tail'):]])" if sys.platform != "darwin" else ""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process to stay awake for."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, then: str) -> Path:
    """Put a tool of this system's name first on PATH; return where it notes its pid and its words."""
    notes, tool = folder / "notes", folder / TOOL
    tool.write_text(STAND_IN.format(python=sys.executable, notes=str(notes), then=then))
    tool.chmod(0o700)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return notes


def noted(notes: Path) -> list[str]:
    until(notes.exists, "the tool to be started")
    return notes.read_text().splitlines()


linux = pytest.mark.skipif(sys.platform == "darwin" or shutil.which("tail") is None, reason="as Linux does it")


@linux
def test_the_machine_is_held_awake_while_it_trains_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sleeper: subprocess.Popen[bytes]
) -> None:
    notes = stand_in(tmp_path, monkeypatch, HOLD)
    with Awake(sleeper.pid) as held:
        pid, *words = noted(notes)
        assert words[:4] == ["--what=sleep:idle", "--who=lq", "--why=a training run is under way", "--mode=block"]
        assert words[4:] == ["tail", f"--pid={sleeper.pid}", "-f", "/dev/null"]
        assert lives(int(pid))
    assert held.note is None
    assert not lives(int(pid))


@linux
def test_the_hold_ends_by_itself_with_the_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sleeper: subprocess.Popen[bytes]
) -> None:
    notes = stand_in(tmp_path, monkeypatch, HOLD)
    with Awake(sleeper.pid) as held:
        pid = int(noted(notes)[0])
        sleeper.kill()
        sleeper.wait()
        until(lambda: not lives(pid), "the hold to end")
    assert held.note is None


@linux
def test_a_worker_that_leaves_its_trainer_running_leaves_it_awake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sleeper: subprocess.Popen[bytes]
) -> None:
    notes = stand_in(tmp_path, monkeypatch, HOLD)
    with Awake(sleeper.pid) as held:
        pid = int(noted(notes)[0])
        held.outlives = True
    assert lives(pid)
    sleeper.kill()
    sleeper.wait()
    until(lambda: not lives(pid), "the hold to end with the trainer")
    os.waitpid(pid, 0)


def test_without_the_tool_it_trains_all_the_same_and_a_note_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with Awake(os.getpid()) as held:
        pass
    assert held.note == f"nothing keeps this machine awake: {TOOL} is not on PATH"


def test_a_tool_that_refuses_is_a_note_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = stand_in(tmp_path, monkeypatch, "sys.exit(1)")
    with Awake(os.getpid()) as held:
        pid = int(noted(notes)[0])
        until(lambda: not lives(pid), "the tool to refuse")
    assert held.note == f"nothing kept this machine awake: {TOOL} ended with code 1"


def test_a_display_is_never_kept_lit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lit one triggers the watchdog that takes the GPU away."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert command("/usr/bin/caffeinate", 77) == ["/usr/bin/caffeinate", "-i", "-s", "-w", "77"]
