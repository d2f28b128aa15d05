"""Memory limits, pressure and out-of-memory kills of this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from workers.system import memory, processes
from workers.system.processes import footprint_bytes, swap_bytes

linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@linux
def test_allowed_memory_is_lowest_limit() -> None:
    allowed = memory.allowed_memory()
    assert allowed > 0
    printed = run(
        "import resource; from workers.system.memory import allowed_memory;"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, resource.RLIM_INFINITY)); print(allowed_memory())"
    )
    assert int(printed) == min(allowed, 3 << 30)


@linux
def test_address_space_share_keeps_the_peak() -> None:
    printed = run(
        "import mmap, resource\n"
        "from workers.system.memory import address_space_share\n"
        "assert address_space_share() is None\n"
        "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, resource.RLIM_INFINITY))\n"
        "before = address_space_share()\n"
        "mmap.mmap(-1, 2 << 30).close()\n"
        "print(before, address_space_share())"
    )
    before, after = map(float, printed.split())
    assert before < 0.5 <= after < 1


@linux
def test_kernel_oom_kills_are_counted() -> None:
    listed = "oom_kill " in Path("/proc/vmstat").read_text()
    kills = memory.kernel_oom_kills()
    assert (kills is not None) == listed
    assert kills is None or kills >= 0


def test_pressure_reading_is_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([True, False])
    monkeypatch.setattr(memory, "_read_pressure", lambda: next(readings))
    gauge = memory.PressureGauge()
    assert {gauge.high() for _ in range(1000)} == {True}


def test_memory_readings_are_bytes() -> None:
    assert 1 << 20 < footprint_bytes() < 1 << 40
    assert processes.memory()[0] > 1 << 20
    swap = swap_bytes()
    assert swap is None or swap >= 0
