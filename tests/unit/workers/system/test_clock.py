"""Boot id, sleep, synchronization and time zone of this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.workers.system.commands import stand_in
from workers.system import clock


def test_boot_id_is_the_same_in_processes() -> None:
    code = "from workers.system.clock import boot_id; print(boot_id())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert clock.boot_id() == other
    assert other not in ("", "unknown")


def test_awake_machine_does_not_sleep() -> None:
    assert clock.can_measure_sleep()
    before = clock.slept_s()
    assert before > -0.01, "the two clocks are read one after the other"
    assert clock.slept_s() - before < 0.5


@pytest.mark.parametrize(
    ("prints", "code", "expected"), [("yes\n", 0, True), ("no\n", 0, False), ("", 1, None), ("\n", 0, None)]
)
def test_clock_synchronization(commands: Path, prints: str, code: int, expected: bool | None) -> None:
    stand_in(commands, "timedatectl", prints=prints, code=code)
    assert clock.is_synchronized() is expected


def test_zone_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert clock.zone_name({"TZ": ":Europe/Berlin"}) == "Europe/Berlin"
    zone = tmp_path / "zoneinfo" / "Asia" / "Kolkata"
    zone.parent.mkdir(parents=True)
    zone.write_bytes(b"")
    link = tmp_path / "localtime"
    monkeypatch.setattr(clock, "_LOCALTIME", link)
    assert clock.zone_name({}) is None
    link.symlink_to(zone)
    assert clock.zone_name({}) == "Asia/Kolkata"
