"""How long ago the user was active on the machine. Not yet tested on a Mac: lq calls ioreg as Apple documents it."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from workers.system.commands import output

_IDLE_NS = re.compile(r'"HIDIdleTime" = (\d+)')
_MUTTER = ("--dest", "org.gnome.Mutter.IdleMonitor", "--object-path", "/org/gnome/Mutter/IdleMonitor/Core")
_UINT = re.compile(r"\(uint64 (\d+),\)")


def idle_s() -> float | None:
    """Return the seconds since the last use of keyboard, pointer or a terminal; None if that is unknown."""
    known = [seconds for seconds in _idle_times() if seconds is not None]
    return min(known, default=None)


def _idle_times() -> Iterator[float | None]:
    if sys.platform == "darwin":
        match = _IDLE_NS.search(output("ioreg", "-c", "IOHIDSystem", "-d", "4") or "")
        yield int(match[1]) / 1e9 if match is not None else None
        return
    yield _terminals_idle_s(Path("/dev/pts"), time.time())
    if os.environ.get("DISPLAY"):
        answer = output("xprintidle")
        yield int(answer) / 1000 if answer and answer.isdigit() else None
    if os.environ.get("WAYLAND_DISPLAY"):
        method = ("--method", "org.gnome.Mutter.IdleMonitor.GetIdletime")
        match = _UINT.search(output("gdbus", "call", "--session", *_MUTTER, *method) or "")
        yield int(match[1]) / 1000 if match is not None else None


def _terminals_idle_s(terminals: Path, now: float) -> float | None:
    """Return the seconds since the last input in a terminal: its access time, as in `w`."""
    used = []
    for terminal in terminals.glob("[0-9]*"):
        with suppress(OSError):
            used.append(terminal.stat().st_atime)
    return max(0.0, now - max(used)) if used else None
