"""Prevents sleep while a child runs. A missing tool is a note, not an error.

macOS: `caffeinate -i -s -w PID`, never -d: with the display on, macOS's watchdog may stop Metal work
(docs/explanation/dependencies.md).
Linux: `systemd-inhibit` around `tail --pid`, which ends with the child.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import Self

from workers.system.commands import output

TOOL = "caffeinate" if sys.platform == "darwin" else "systemd-inhibit"

_MAC_OPTIONS = ("-i", "-s")
_LINUX_OPTIONS = ("--what=sleep:idle", "--who=lq", "--mode=block")
_TRY_S = 2.0
_DISPLAY_SLEEP = re.compile(r"^\s*displaysleep\s+(\d+)", re.MULTILINE)
_DISPLAY_HELD = re.compile(r"^\s*PreventUserIdleDisplaySleep\s+1\s*$", re.MULTILINE)


class KeepAwake:
    """Prevents sleep while a process runs."""

    def __init__(self, pid: int) -> None:
        """Prepare; the tool exits when this process does."""
        self._pid = pid
        self._popen: subprocess.Popen[bytes] | None = None
        self.outlives = False  # leave the tool running after this block, until the process exits
        self.note: str | None = None  # why sleep was not prevented; None if it was

    def __enter__(self) -> Self:
        tool = shutil.which(TOOL)
        if tool is None:
            self.note = f"sleep is not prevented: {TOOL} is not on PATH"
            return self
        self._popen = subprocess.Popen(
            command(tool, self._pid),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._popen is None:
            return
        if self._popen.poll() is None:
            if self.outlives:
                self._popen.returncode = 0  # prevents Popen's warning about a child that was not waited for
                return
            self._popen.terminate()
        elif self._popen.returncode != 0:
            self.note = f"sleep was not prevented: {TOOL} exited with code {self._popen.returncode}"
        self._popen.wait()


def command(tool: str, pid: int) -> list[str]:
    """Return the command line that prevents sleep until the process exits."""
    if sys.platform == "darwin":
        return [tool, *_MAC_OPTIONS, "-w", str(pid)]
    why = "--why=a training run is in progress"
    return [tool, *_LINUX_OPTIONS, why, "tail", f"--pid={pid}", "-f", "/dev/null"]


def try_tool() -> tuple[str | None, str | None]:
    """Run the tool for an instant; return its path, None if it is not installed, and its error, None if it works."""
    path = shutil.which(TOOL)
    if path is None:
        return None, None
    options = _MAC_OPTIONS if sys.platform == "darwin" else (*_LINUX_OPTIONS, "--why=a test")
    try:
        done = subprocess.run(
            [path, *options, "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TRY_S
        )
    except subprocess.TimeoutExpired:
        return path, "no answer"
    except OSError as error:
        return path, (error.strerror or type(error).__name__).lower()
    if done.returncode == 0:
        return path, None
    lines = done.stderr.strip().splitlines()
    return path, lines[-1] if lines else f"exit code {done.returncode}"


def display() -> tuple[int | None, bool]:
    """Return after how many minutes macOS turns the display off (0: never), and whether a program keeps it on."""
    if sys.platform != "darwin":
        return None, False
    minutes = _DISPLAY_SLEEP.search(output("pmset", "-g", timeout_s=2.0) or "")
    held = _DISPLAY_HELD.search(output("pmset", "-g", "assertions", timeout_s=2.0) or "")
    return (int(minutes[1]) if minutes is not None else None), held is not None
