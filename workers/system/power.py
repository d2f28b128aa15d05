"""What the machine says of power, heat and use, asked only where a job cares, and seldom: some of it takes a command.

None of it was seen on a Mac yet: notifyutil and ioreg are asked as Apple documents them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar, cast

from jobs.scheduling.constraints import Constraints
from jobs.scheduling.obstacles import THERMAL, Reading
from workers.system import processes

FRESH_S = 10.0
"""A reading is taken again after so long."""

_COMMAND_S = 5.0
_ZONES = Path("/sys/class/thermal")
_NEAR_CRITICAL_C, _NEAR_PASSIVE_C, _FAR_BELOW_CRITICAL_C = 5.0, 10.0, 20.0
_MAC_PRESSURE = "com.apple.system.thermalpressurelevel"
_IDLE_NS = re.compile(r'"HIDIdleTime" = (\d+)')
_MUTTER = ("--dest", "org.gnome.Mutter.IdleMonitor", "--object-path", "/org/gnome/Mutter/IdleMonitor/Core")
_UINT = re.compile(r"\(uint64 (\d+),\)")

T = TypeVar("T")


class Gauge:
    """Reads what the terms of a job ask about; each reading is kept for ten seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is read yet.

        Args:
            clock: seconds, on any clock.
        """
        self._clock = clock
        self._read_at = float("-inf")
        self._kept: dict[str, object] = {}

    def read(self, constraints: Constraints) -> Reading:
        """Return what these terms ask about; everything else stays None.

        Args:
            constraints: of a job.
        """
        if self._clock() - self._read_at >= FRESH_S:
            self._read_at = self._clock()
            self._kept.clear()
        charge, mains = self._once("battery", _battery) if constraints.needs_power else (None, None)
        return Reading(
            mains=mains,
            charge=charge,
            thermal=self._once("thermal", thermal_level) if constraints.thermal is not None else None,
            idle_s=self._once("idle", idle_s) if constraints.idle_s is not None else None,
        )

    def _once(self, name: str, read: Callable[[], T]) -> T:
        if name not in self._kept:
            self._kept[name] = read()
        return cast("T", self._kept[name])


def _battery() -> tuple[int | None, bool | None]:
    """Return the charge in percent and whether the machine is on mains; one without a battery always is."""
    found = processes.battery()
    return (None, True) if found is None else (round(100 * found[0]), found[1])


# --- heat ---


def thermal_level() -> str | None:
    """Return how hot the machine is, one of THERMAL; None where it does not say."""
    return _mac_thermal() if sys.platform == "darwin" else _linux_thermal(_ZONES)


def _mac_thermal() -> str | None:
    """Ask for the pressure (OSThermalNotification.h): 0 nominal, 1 moderate, 2 heavy, 3 trapping, 4 sleeping."""
    answer = _output(["notifyutil", "-g", _MAC_PRESSURE])
    level = answer.split()[-1] if answer else ""
    return THERMAL[min(int(level), len(THERMAL) - 1)] if level.isdigit() else None


def _linux_thermal(zones: Path) -> str | None:
    """Return the level of the hottest zone, by its own trip points."""
    levels = [level for zone in zones.glob("thermal_zone*") if (level := _zone_level(zone)) is not None]
    return THERMAL[max(levels)] if levels else None


def _zone_level(zone: Path) -> int | None:
    """Return the place in THERMAL of a zone; None where it has no temperature or no trip point.

    The kernel slows the machine down from `passive` on, so that is serious; at `critical` it switches it off.
    """
    now = _degrees(zone / "temp")
    trips: dict[str, float] = {}
    for kind in zone.glob("trip_point_*_type"):
        at = _degrees(kind.with_name(kind.name.replace("_type", "_temp")))
        name = _text(kind)
        if at is not None and at > 0:
            trips[name] = min(at, trips.get(name, at))
    critical = min((trips[name] for name in ("critical", "hot") if name in trips), default=None)
    passive = trips.get("passive")
    if now is None or (critical is None and passive is None):
        return None
    if critical is not None and now >= critical - _NEAR_CRITICAL_C:
        return 3
    if passive is not None:
        return 2 if now >= passive else 1 if now >= passive - _NEAR_PASSIVE_C else 0
    assert critical is not None
    return 1 if now >= critical - _FAR_BELOW_CRITICAL_C else 0


def _degrees(path: Path) -> float | None:
    try:
        return int(_text(path)) / 1000
    except ValueError:
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


# --- use ---


def idle_s() -> float | None:
    """Return how long ago somebody used keyboard, pointer or a terminal, in seconds; None where it is not known."""
    known = [seconds for seconds in _idle_times() if seconds is not None]
    return min(known, default=None)


def _idle_times() -> Iterator[float | None]:
    if sys.platform == "darwin":
        answer = _output(["ioreg", "-c", "IOHIDSystem", "-d", "4"])
        found = _IDLE_NS.search(answer or "")
        yield int(found[1]) / 1e9 if found is not None else None
        return
    yield _terminals_idle_s(Path("/dev/pts"), time.time())
    if os.environ.get("DISPLAY"):
        answer = _output(["xprintidle"])
        yield int(answer) / 1000 if answer and answer.isdigit() else None
    if os.environ.get("WAYLAND_DISPLAY"):
        method = ("--method", "org.gnome.Mutter.IdleMonitor.GetIdletime")
        found = _UINT.search(_output(["gdbus", "call", "--session", *_MUTTER, *method]) or "")
        yield int(found[1]) / 1000 if found is not None else None


def _terminals_idle_s(terminals: Path, now: float) -> float | None:
    """Return how long ago something was last typed in a terminal: its time of access, as `w` has it."""
    used = []
    for terminal in terminals.glob("[0-9]*"):
        with suppress(OSError):
            used.append(terminal.stat().st_atime)
    return max(0.0, now - max(used)) if used else None


def _output(command: list[str]) -> str | None:
    """Return what a command prints; None where it is not there, fails or hangs."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_S, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return answer.stdout.strip()
