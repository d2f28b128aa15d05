"""Memory limits, memory pressure and out-of-memory kills. Each reading is None if it is unknown."""

from __future__ import annotations

import os
import re
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

from workers.system import processes
from workers.system.commands import output

PRESSURE_SHARE = 10.0
"""Percent. On Linux memory is short if tasks waited for it in this share of the last 10 s (/proc/pressure/memory)."""

_PRESSURE_EVERY_S = 5.0


def allowed_memory() -> int:
    """Return how many bytes this process may use: the minimum of machine, cgroup and RLIMIT_AS."""
    return min(memory_limits().values())


def memory_limits() -> dict[str, int]:
    """Return every memory limit of this process in bytes, by its source: machine, cgroup, RLIMIT_AS."""
    limits = {"machine": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")}
    groups = [limit for limit in _cgroup_limits() if limit < limits["machine"]]  # cgroup v1 has a huge one for "none"
    if groups:
        limits["cgroup"] = min(groups)
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limits["RLIMIT_AS"] = soft
    return limits


def _cgroup_limits() -> list[int]:
    """Return the memory limits of this process's control groups, versions 1 and 2."""
    limits = []
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            path = Path("/sys/fs/cgroup" + group) / "memory.max"
        elif "memory" in controllers.split(","):
            path = Path("/sys/fs/cgroup/memory" + group) / "memory.limit_in_bytes"
        else:
            continue
        with suppress(OSError, ValueError):  # no such file, or "max"
            limits.append(int(path.read_text()))
    return limits


def address_space_share() -> float | None:
    """Return the peak share of its address space that this process has used, 0..1; None without RLIMIT_AS.

    The peak, because an allocation usually fails between two reports. Only Linux reports the peak (proc(5)); other
    systems report the present use.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return None
    with suppress(OSError):
        match = re.search(r"^VmPeak:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        if match is not None:
            return int(match[1]) * 1024 / soft
    return processes.address_space_bytes() / soft


class PressureGauge:
    """Reads whether the system reports memory pressure, at most every 5 s: on macOS a reading takes a command."""

    def __init__(self) -> None:
        self._read_at = float("-inf")
        self._high = False

    def high(self) -> bool:
        now = time.monotonic()
        if now - self._read_at >= _PRESSURE_EVERY_S:
            self._read_at, self._high = now, _read_pressure()
        return self._high


def _read_pressure() -> bool:
    if sys.platform == "darwin":
        level = output("sysctl", "-n", "kern.memorystatus_vm_pressure_level")  # 1 normal, 2 warning, 4 critical
        return level is not None and level.isdigit() and int(level) >= 2
    try:
        some = Path("/proc/pressure/memory").read_text().splitlines()[0]
        return float(some.split("avg10=", 1)[1].split(" ", 1)[0]) >= PRESSURE_SHARE
    except (OSError, IndexError, ValueError):
        return False


def kernel_oom_kills() -> int | None:
    """Return how many processes the Linux out-of-memory killer has ended since boot."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None


def prefer_for_oom_kill() -> None:
    """Make the Linux out-of-memory killer choose this process before the worker. No effect on other systems."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
