"""How hot the machine is. Not yet tested on a Mac: lq calls notifyutil as Apple documents it."""

from __future__ import annotations

import sys
from pathlib import Path

from jobs.scheduling.obstacles import THERMAL
from workers.system.commands import output

_ZONES = Path("/sys/class/thermal")
_NEAR_CRITICAL_C, _NEAR_PASSIVE_C, _FAR_BELOW_CRITICAL_C = 5.0, 10.0, 20.0
_MAC_PRESSURE = "com.apple.system.thermalpressurelevel"


def thermal_level() -> str | None:
    """Return one of THERMAL; None if the machine does not report it."""
    return _mac_thermal() if sys.platform == "darwin" else _linux_thermal(_ZONES)


def _mac_thermal() -> str | None:
    """Read the thermal pressure (OSThermalNotification.h): 0 nominal, 1 moderate, 2 heavy, 3 trapping, 4 sleeping."""
    answer = output("notifyutil", "-g", _MAC_PRESSURE)
    level = answer.split()[-1] if answer else ""
    return THERMAL[min(int(level), len(THERMAL) - 1)] if level.isdigit() else None


def _linux_thermal(zones: Path) -> str | None:
    levels = [level for zone in zones.glob("thermal_zone*") if (level := _zone_level(zone)) is not None]
    return THERMAL[max(levels)] if levels else None


def _zone_level(zone: Path) -> int | None:
    """Return the index in THERMAL of a zone by its own trip points; None without a temperature or a trip point.

    The kernel throttles from `passive` on, so `passive` is serious; at `critical` it shuts the machine down.
    """
    now = _degrees(zone / "temp")
    trips: dict[str, float] = {}
    for kind in zone.glob("trip_point_*_type"):
        at = _degrees(kind.with_name(kind.name.replace("_type", "_temp")))
        name = kind.read_text().strip() if at is not None else ""
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
        return int(path.read_text()) / 1000
    except (OSError, ValueError):
        return None
