"""What the machine says of power, heat and use: recorded output of macOS, folders like Linux's, and garbage."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.scheduling.constraints import Constraints
from jobs.scheduling.obstacles import Reading
from workers.system import power, processes

IOREG = """+-o Root  <class IORegistryEntry, id 0x100000100, retain 38>
    | {
    |   "HIDIdleTime" = 4218000000
    |   "HIDParameters" = {"HIDIdleTime"=1}
    | }
"""


def stand_in(folder: Path, name: str, prints: str, code: int = 0) -> None:
    """Put an executable on PATH that prints something."""
    path = folder / name
    (folder / f"{name}.out").write_text(prints)
    path.write_text(f'#!/bin/sh\ncat "{folder}/{name}.out"\nexit {code}\n')
    path.chmod(0o755)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first on PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


@pytest.mark.parametrize(
    ("prints", "level"),
    [
        ("com.apple.system.thermalpressurelevel 0\n", "nominal"),
        ("com.apple.system.thermalpressurelevel 1\n", "fair"),
        ("com.apple.system.thermalpressurelevel 2\n", "serious"),
        ("com.apple.system.thermalpressurelevel 3\n", "critical"),
        ("com.apple.system.thermalpressurelevel 4\n", "critical"),
        ("", None),
        ("Failed with code 7\n\n", "critical"),
        ("nonsense\n", None),
    ],
)
def test_a_macs_heat_is_its_thermal_pressure(
    path: Path, monkeypatch: pytest.MonkeyPatch, prints: str, level: str | None
) -> None:
    if prints.startswith("Failed"):
        stand_in(path, "notifyutil", prints, code=1)
        level = None
    else:
        stand_in(path, "notifyutil", prints)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert power.thermal_level() == level


def test_a_macs_idle_time_is_that_of_its_input(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(path, "ioreg", IOREG)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert power.idle_s() == 4.218
    stand_in(path, "ioreg", "")
    assert power.idle_s() is None


def zone(folder: Path, number: int, temp: str, **trips: int) -> None:
    """Make a thermal zone as Linux has it."""
    made = folder / f"thermal_zone{number}"
    made.mkdir()
    (made / "temp").write_text(temp)
    for place, (kind, at) in enumerate(trips.items()):
        (made / f"trip_point_{place}_type").write_text(f"{kind}\n")
        (made / f"trip_point_{place}_temp").write_text(f"{at}\n")


@pytest.mark.parametrize(
    ("temp", "level"),
    [
        ("45000", "nominal"),
        ("86000", "fair"),
        ("95000", "serious"),
        ("100500", "critical"),
        ("", None),
        ("hot", None),
    ],
)
def test_a_linux_machines_heat_is_measured_by_its_trip_points(tmp_path: Path, temp: str, level: str | None) -> None:
    zone(tmp_path, 0, temp, passive=95000, critical=105000)
    zone(tmp_path, 1, "30000")  # has no trip point
    assert power._linux_thermal(tmp_path) == level


def test_the_hottest_zone_counts_and_one_without_a_passive_point_is_judged_by_its_critical_one(tmp_path: Path) -> None:
    zone(tmp_path, 0, "40000", passive=95000, critical=105000)
    zone(tmp_path, 1, "82000", critical=100000)
    assert power._linux_thermal(tmp_path) == "fair"
    assert power._linux_thermal(tmp_path / "none") is None


def test_the_terminal_used_last_tells_when_somebody_typed(tmp_path: Path) -> None:
    for name, seconds in (("0", 1000.0), ("1", 4000.0)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (seconds, seconds))
    (tmp_path / "ptmx").touch()
    assert power._terminals_idle_s(tmp_path, 4100.0) == 100.0
    assert power._terminals_idle_s(tmp_path / "none", 1.0) is None


def test_a_desktops_idle_time_is_asked_of_its_own_tools(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    stand_in(path, "xprintidle", "2500\n")
    stand_in(path, "gdbus", "(uint64 1250,)\n")
    assert {2.5, 1.25} <= set(power._idle_times())
    stand_in(path, "xprintidle", "no display\n", code=1)
    stand_in(path, "gdbus", "Error: no such object\n", code=1)
    assert list(power._idle_times())[1:] == [None, None]


def test_only_what_a_job_asks_about_is_read_and_not_more_often_than_every_ten_seconds(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def says(name: str, value: object) -> Callable[[], object]:
        def said() -> object:
            asked.append(name)
            return value

        return said

    monkeypatch.setattr(power, "thermal_level", says("thermal", "fair"))
    monkeypatch.setattr(power, "idle_s", says("idle", 5.0))
    monkeypatch.setattr(processes, "battery", says("battery", (0.5, False)))
    now = [0.0]
    gauge = power.Gauge(lambda: now[0])
    assert gauge.read(Constraints()) == Reading()
    assert asked == []
    assert gauge.read(Constraints(thermal="serious")).thermal == "fair"
    assert gauge.read(Constraints(thermal="serious", require_ac=True)).mains is False
    assert gauge.read(Constraints(min_battery=30)).charge == 50
    assert asked == ["thermal", "battery"]
    now[0] = 10.0
    gauge.read(Constraints(idle_s=600.0, thermal="fair"))
    assert asked == ["thermal", "battery", "thermal", "idle"]


def test_a_machine_without_a_battery_is_on_mains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "battery", lambda: None)
    found = power.Gauge().read(Constraints(require_ac=True, min_battery=30))
    assert (found.mains, found.charge) == (True, None)
