"""What the machine says about itself, and that it says the same each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from workers.system import sensors
from workers.system.processes import footprint_bytes, free_bytes, swap_bytes

linux = pytest.mark.skipif(sys.platform != "linux", reason="as Linux says it")


def test_the_boot_id_stays_while_the_machine_lives() -> None:
    here = sensors.boot_id()
    other = subprocess.run(
        [sys.executable, "-c", "from workers.system.sensors import boot_id; print(boot_id())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert here == other
    assert here not in ("", "unknown")


def test_a_machine_has_a_name() -> None:
    assert sensors.machine()
    assert "\n" not in sensors.machine()


@linux
def test_what_may_be_taken_is_the_least_of_all_limits() -> None:
    pages = sensors.allowed_memory()
    assert pages > 0
    code = (
        "import resource; from workers.system.sensors import allowed_memory;"
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, resource.RLIM_INFINITY)); print(allowed_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == min(pages, 3 << 30)


def test_an_awake_machine_has_not_slept_a_second_more() -> None:
    before = sensors.slept_s()
    assert before > -0.01, "two clocks, read one after the other"
    assert sensors.slept_s() - before < 0.5


@linux
def test_the_kernel_counts_the_processes_it_ended_for_memory() -> None:
    listed = "oom_kill " in Path("/proc/vmstat").read_text()
    found = sensors.kernel_oom_kills()
    assert (found is not None) == listed
    assert found is None or found >= 0


def test_pressure_is_read_seldom() -> None:
    gauge = sensors.PressureGauge()
    first = gauge.high()
    assert {gauge.high() for _ in range(1000)} == {first}, "a thousand readings would be a thousand commands on a Mac"


def test_memory_is_told_in_bytes() -> None:
    assert 1 << 20 < footprint_bytes() < 1 << 40
    assert free_bytes() > 1 << 20
    swap = swap_bytes()
    assert swap is None or swap >= 0
