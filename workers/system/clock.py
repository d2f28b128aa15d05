"""The machine's clocks: its boot, its sleep, its time zone. Each reading is None if it is unknown."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from workers.system.commands import output

_LINUX_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LOCALTIME = Path("/etc/localtime")
_MAC_MONOTONIC_RAW, _MAC_UPTIME_RAW = 4, 8  # <time.h> of macOS


@cache
def boot_id() -> str:
    """Return the id of the current boot; it changes with every restart of the machine."""
    if sys.platform == "darwin":
        return output("sysctl", "-n", "kern.bootsessionuuid") or "unknown"
    try:
        return _LINUX_BOOT_ID.read_text().strip()
    except OSError:
        return "unknown"


def slept_s() -> float:
    """Return how many seconds the machine has slept since boot: the difference of two clocks, one stops in sleep."""
    if sys.platform == "darwin":
        return time.clock_gettime(_MAC_MONOTONIC_RAW) - time.clock_gettime(_MAC_UPTIME_RAW)
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


def can_measure_sleep() -> bool:
    """Report whether the system has the two clocks that `slept_s` compares."""
    if sys.platform == "darwin":
        return True
    return hasattr(time, "CLOCK_BOOTTIME") and hasattr(time, "CLOCK_MONOTONIC")


def is_synchronized() -> bool | None:
    """Report whether the clock is synchronized over the network. On macOS only administrators can read this."""
    answer = output("timedatectl", "show", "--property=NTPSynchronized", "--value", timeout_s=2.0)
    return {"yes": True, "no": False}.get(answer or "")


def zone_name(environment: Mapping[str, str]) -> str | None:
    """Return the name of the time zone; None if none is set."""
    if environment.get("TZ"):
        return environment["TZ"].removeprefix(":")
    try:
        target = os.path.realpath(_LOCALTIME, strict=True)
    except OSError:
        return None
    _, separator, name = target.partition("zoneinfo/")
    return name if separator else str(_LOCALTIME)
