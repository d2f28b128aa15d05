"""What the machine says about itself; each reading is None where it is unknown."""

from __future__ import annotations

import platform
import subprocess
import sys
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


def _sysctl(name: str) -> str | None:
    try:
        answer = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
