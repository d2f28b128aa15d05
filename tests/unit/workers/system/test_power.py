"""The readings of power, heat and use that a job's constraints need."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobs.scheduling.constraints import Constraints
from jobs.scheduling.obstacles import Reading
from workers.system import power, processes


def test_only_needed_readings_every_10_s(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []

    def recording(name: str, value: object) -> Callable[[], object]:
        def read() -> object:
            reads.append(name)
            return value

        return read

    monkeypatch.setattr(power, "thermal_level", recording("thermal", "fair"))
    monkeypatch.setattr(power, "idle_s", recording("idle", 5.0))
    monkeypatch.setattr(processes, "battery", recording("battery", (0.5, False)))
    now = [0.0]
    reader = power.ConditionReader(lambda: now[0])
    assert reader.read(Constraints()) == Reading()
    assert reads == []
    assert reader.read(Constraints(thermal="serious")).thermal == "fair"
    assert reader.read(Constraints(thermal="serious", require_ac=True)).mains is False
    assert reader.read(Constraints(min_battery=30)).charge == 50
    assert reads == ["thermal", "battery"]
    now[0] = 10.0
    reader.read(Constraints(idle_s=600.0, thermal="fair"))
    assert reads == ["thermal", "battery", "thermal", "idle"]


def test_machine_without_battery_is_on_mains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "battery", lambda: None)
    reading = power.ConditionReader().read(Constraints(require_ac=True, min_battery=30))
    assert (reading.mains, reading.charge) == (True, None)


def test_battery_reading_is_a_share() -> None:
    reading = processes.battery()
    assert reading is None or (0 <= reading[0] <= 1 and isinstance(reading[1], bool))
