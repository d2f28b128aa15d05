"""What the machine says about itself; each reading is None where it is unknown."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

_LINUX_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def boot_id() -> str:
    """Return what names the machine's present life: another value means it was restarted in between."""
    if sys.platform == "darwin":
        return _sysctl("kern.bootsessionuuid") or "unknown"
    try:
        return _LINUX_BOOT_ID.read_text().strip()
    except OSError:
        return "unknown"


@cache
def machine() -> str:
    """Return the processor's name, such as `Apple M2` or `x86_64 Intel(R) Xeon(R)`."""
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{platform.machine()} {line.split(':', 1)[1].strip()}"
    except OSError:
        pass
    return platform.machine()


def allowed_memory() -> int:
    """Return what this process may take, in bytes: the least of the machine's memory, its cgroup's, its own limit."""
    return min(memory_limits().values())


def memory_limits() -> dict[str, int]:
    """Return every limit of this process's memory in bytes, by what sets it: machine, cgroup, RLIMIT_AS."""
    limits = {"machine": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")}
    groups = [limit for limit in _cgroup_limits() if limit < limits["machine"]]  # version 1 says "none" by a huge one
    if groups:
        limits["cgroup"] = min(groups)
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limits["RLIMIT_AS"] = soft
    return limits


def _cgroup_limits() -> list[int]:
    """Return the memory limits of this process's control groups, version 1 and 2."""
    found = []
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
        try:
            found.append(int(path.read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return found


PRESSURE_SHARE = 10.0
"""Linux: memory is short when tasks waited for it in this share of the last ten seconds (/proc/pressure/memory)."""

_PRESSURE_EVERY_S = 5.0


class PressureGauge:
    """Whether the system says that memory is short. Read at most every five seconds: macOS is asked by a command."""

    def __init__(self) -> None:
        """Nothing is read yet."""
        self._read_at = float("-inf")
        self._high = False

    def high(self) -> bool:
        """Return the last reading, or a new one where it is old."""
        now = time.monotonic()
        if now - self._read_at >= _PRESSURE_EVERY_S:
            self._read_at, self._high = now, _read_pressure()
        return self._high


def _read_pressure() -> bool:
    if sys.platform == "darwin":
        level = _sysctl("kern.memorystatus_vm_pressure_level")  # 1 normal, 2 warning, 4 critical
        return level is not None and level.isdigit() and int(level) >= 2
    try:
        some = Path("/proc/pressure/memory").read_text().splitlines()[0]
        return float(some.split("avg10=", 1)[1].split(" ", 1)[0]) >= PRESSURE_SHARE
    except (OSError, IndexError, ValueError):
        return False


def kernel_oom_kills() -> int | None:
    """Return how many processes Linux has ended for memory since it was started; None where unknown."""
    try:
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    except (OSError, ValueError):
        pass
    return None


def slept_s() -> float:
    """Return how long the machine has slept since it was started, in seconds: of two clocks, one stops in sleep."""
    if sys.platform == "darwin":
        return time.clock_gettime(_MAC_MONOTONIC_RAW) - time.clock_gettime(_MAC_UPTIME_RAW)
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


_MAC_MONOTONIC_RAW, _MAC_UPTIME_RAW = 4, 8  # <time.h> of macOS


def _sysctl(name: str) -> str | None:
    try:
        answer = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
