"""Thermal levels: output of macOS, and folders like those of Linux."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.unit.workers.system.commands import stand_in
from workers.system import thermal


@pytest.mark.parametrize(
    ("prints", "code", "level"),
    [
        ("com.apple.system.thermalpressurelevel 0\n", 0, "nominal"),
        ("com.apple.system.thermalpressurelevel 1\n", 0, "fair"),
        ("com.apple.system.thermalpressurelevel 2\n", 0, "serious"),
        ("com.apple.system.thermalpressurelevel 3\n", 0, "critical"),
        ("com.apple.system.thermalpressurelevel 4\n", 0, "critical"),
        ("", 0, None),
        ("Failed with code 7\n\n", 1, None),
        ("nonsense\n", 0, None),
    ],
)
def test_mac_thermal_pressure(
    commands: Path, monkeypatch: pytest.MonkeyPatch, prints: str, code: int, level: str | None
) -> None:
    stand_in(commands, "notifyutil", prints=prints, code=code)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert thermal.thermal_level() == level


def zone(folder: Path, number: int, temp: str, **trips: int) -> None:
    """Create a thermal zone as Linux has it."""
    path = folder / f"thermal_zone{number}"
    path.mkdir()
    (path / "temp").write_text(temp)
    for place, (kind, at) in enumerate(trips.items()):
        (path / f"trip_point_{place}_type").write_text(f"{kind}\n")
        (path / f"trip_point_{place}_temp").write_text(f"{at}\n")


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
def test_linux_level_by_trip_points(tmp_path: Path, temp: str, level: str | None) -> None:
    zone(tmp_path, 0, temp, passive=95000, critical=105000)
    zone(tmp_path, 1, "30000")  # without a trip point
    assert thermal._linux_thermal(tmp_path) == level


def test_linux_hottest_zone_counts(tmp_path: Path) -> None:
    zone(tmp_path, 0, "40000", passive=95000, critical=105000)
    zone(tmp_path, 1, "82000", critical=100000)
    assert thermal._linux_thermal(tmp_path) == "fair"
    assert thermal._linux_thermal(tmp_path / "none") is None
