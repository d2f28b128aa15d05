"""Prevention of sleep, with a stand-in for the system's tool that records its arguments."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import lives, until
from tests.unit.workers.system.commands import stand_in
from workers.system import keep_awake
from workers.system.keep_awake import TOOL, KeepAwake, command

RECORDER = """#!{python}
import os, sys
open({notes!r} + ".new", "w").write("\\n".join([str(os.getpid()), *sys.argv[1:]]))
os.rename({notes!r} + ".new", {notes!r})
{then}
"""
HOLD = "os.execvp('tail', [word for word in sys.argv[sys.argv.index('tail'):]])" if sys.platform != "darwin" else ""

# as pmset(1) documents it; not tested on a Mac
PMSET = """System-wide power settings:
Currently in use:
 standby              1
 sleep                1 (sleep prevented by caffeinate)
 displaysleep         10
 disksleep            10
"""
ASSERTIONS = """Assertion status system-wide:
   BackgroundTask                 0
   PreventUserIdleDisplaySleep    {held}
   PreventUserIdleSystemSleep     1
Listed by owning process:
   pid 77(caffeinate): [0x1] 00:00:01 PreventUserIdleSystemSleep named: "caffeinate"
"""

linux = pytest.mark.skipif(sys.platform == "darwin" or shutil.which("tail") is None, reason="Linux only")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """Start a process to prevent sleep for."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def recorder(folder: Path, then: str) -> Path:
    """Create a stand-in for the tool, and return the file with its pid and its arguments."""
    notes, tool = folder / "notes", folder / TOOL
    tool.write_text(RECORDER.format(python=sys.executable, notes=str(notes), then=then))
    tool.chmod(0o700)
    return notes


def recorded(notes: Path) -> list[str]:
    until(notes.exists, "the tool to start")
    return notes.read_text().splitlines()


@linux
def test_tool_runs_only_in_block(commands: Path, sleeper: subprocess.Popen[bytes]) -> None:
    notes = recorder(commands, HOLD)
    with KeepAwake(sleeper.pid) as awake:
        pid, *words = recorded(notes)
        assert words[:3] == ["--what=sleep:idle", "--who=lq", "--mode=block"]
        assert words[4:] == ["tail", f"--pid={sleeper.pid}", "-f", "/dev/null"]
        assert lives(int(pid))
    assert awake.note is None
    assert not lives(int(pid))


@linux
def test_tool_exits_with_process(commands: Path, sleeper: subprocess.Popen[bytes]) -> None:
    notes = recorder(commands, HOLD)
    with KeepAwake(sleeper.pid) as awake:
        pid = int(recorded(notes)[0])
        sleeper.kill()
        sleeper.wait()
        until(lambda: not lives(pid), "the tool to exit")
    assert awake.note is None


@linux
def test_tool_can_outlive_block(commands: Path, sleeper: subprocess.Popen[bytes]) -> None:
    notes = recorder(commands, HOLD)
    with KeepAwake(sleeper.pid) as awake:
        pid = int(recorded(notes)[0])
        awake.outlives = True
    assert lives(pid)
    sleeper.kill()
    sleeper.wait()
    until(lambda: not lives(pid), "the tool to exit with the process")
    os.waitpid(pid, 0)


def test_missing_tool_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with KeepAwake(os.getpid()) as awake:
        pass
    assert awake.note is not None
    assert TOOL in awake.note
    assert keep_awake.try_tool() == (None, None)


def test_failing_tool_is_a_note(commands: Path) -> None:
    notes = recorder(commands, "sys.exit(1)")
    with KeepAwake(os.getpid()) as awake:
        pid = int(recorded(notes)[0])
        until(lambda: not lives(pid), "the tool to fail")
    assert awake.note is not None
    assert "code 1" in awake.note


def test_mac_display_may_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the display on, macOS's watchdog may stop Metal work."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert command("/usr/bin/caffeinate", 77) == ["/usr/bin/caffeinate", "-i", "-s", "-w", "77"]


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("exit 0", None),
        ("echo 'Failed to connect to bus' >&2; exit 1", "Failed to connect to bus"),
        ("exit 3", "exit code 3"),
    ],
)
def test_try_tool_returns_error(commands: Path, script: str, error: str | None) -> None:
    stand_in(commands, TOOL, script=script)
    assert keep_awake.try_tool() == (str(commands / TOOL), error)


def test_try_tool_has_time_limit(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keep_awake, "_TRY_S", 0.2)
    stand_in(commands, TOOL, script="exec sleep 60")
    assert keep_awake.try_tool() == (str(commands / TOOL), "no answer")


def pmset(folder: Path, settings: str, held: int) -> None:
    (folder / "settings.txt").write_text(settings)
    (folder / "assertions.txt").write_text(ASSERTIONS.format(held=held))
    script = f'[ "$2" = assertions ] && exec cat {folder}/assertions.txt\nexec cat {folder}/settings.txt'
    stand_in(folder, "pmset", script=script)


@pytest.mark.parametrize(
    ("settings", "held", "expected"),
    [
        (PMSET, 0, (10, False)),
        (PMSET, 1, (10, True)),
        (PMSET.replace("10\n disk", "0\n disk"), 0, (0, False)),
        ("", 0, (None, False)),
    ],
)
def test_mac_display_settings(
    commands: Path, monkeypatch: pytest.MonkeyPatch, settings: str, held: int, expected: tuple[int | None, bool]
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    pmset(commands, settings, held)
    assert keep_awake.display() == expected


def test_mac_display_without_pmset(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    stand_in(commands, "pmset", code=1)
    assert keep_awake.display() == (None, False)


@linux
def test_linux_display_is_not_read(commands: Path) -> None:
    pmset(commands, PMSET, 1)
    assert keep_awake.display() == (None, False)
