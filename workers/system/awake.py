"""Keeps the machine awake for as long as a child lives. Absent tools are a note, not an error.

macOS: `caffeinate -i -s -w PID`, never -d: a lit display triggers the Metal watchdog (field-notes.md).
Linux: `systemd-inhibit` around `tail --pid`, which ends with the child.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from types import TracebackType
from typing import Self

TOOL = "caffeinate" if sys.platform == "darwin" else "systemd-inhibit"
WHY = "a training run is under way"


class Awake:
    """Holds the machine awake while a process lives."""

    def __init__(self, pid: int) -> None:
        """Prepare.

        Args:
            pid: the process; both tools end by themselves when it does.
        """
        self._pid = pid
        self._popen: subprocess.Popen[bytes] | None = None
        self.outlives = False  # the holding goes on after this block, until the process ends
        self.note: str | None = None  # why nothing held the machine awake, where nothing did

    def __enter__(self) -> Self:
        """Begin to hold it awake."""
        tool = shutil.which(TOOL)
        if tool is None:
            self.note = f"nothing keeps this machine awake: {TOOL} is not on PATH"
            return self
        self._popen = subprocess.Popen(
            command(tool, self._pid),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the machine sleep again."""
        if self._popen is None:
            return
        if self._popen.poll() is None:
            if self.outlives:
                self._popen.returncode = 0  # it is nobody's to wait for; without this Popen would warn
                return
            self._popen.terminate()
        elif self._popen.returncode != 0:
            self.note = f"nothing kept this machine awake: {TOOL} ended with code {self._popen.returncode}"
        self._popen.wait()


def command(tool: str, pid: int) -> list[str]:
    """Return the command line that holds the machine awake.

    Args:
        tool: path of the tool.
        pid: the process whose end ends it.
    """
    if sys.platform == "darwin":
        return [tool, "-i", "-s", "-w", str(pid)]
    hold = ["--what=sleep:idle", "--who=lq", f"--why={WHY}", "--mode=block"]
    return [tool, *hold, "tail", f"--pid={pid}", "-f", "/dev/null"]
