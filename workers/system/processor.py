"""The processor of this machine."""

from __future__ import annotations

import platform
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from workers.system.commands import output


@cache
def machine() -> str:
    """Return the processor's name, such as `Apple M2` or `x86_64 Intel(R) Xeon(R)`."""
    if sys.platform == "darwin":
        return output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{platform.machine()} {line.split(':', 1)[1].strip()}"
    return platform.machine()


def is_apple_silicon() -> bool:
    """Report whether this is macOS on arm64, with or without Rosetta."""
    return sys.platform == "darwin" and (platform.machine() == "arm64" or is_translated())


def is_translated() -> bool:
    """Report whether this is an x86 Python that Rosetta runs on Apple silicon."""
    return sys.platform == "darwin" and output("sysctl", "-n", "sysctl.proc_translated", timeout_s=2.0) == "1"
