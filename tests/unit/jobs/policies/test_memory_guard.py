"""The memory guard: limit, swap and speed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from jobs.model.events import MemoryReading, ProgressEvent
from jobs.policies.memory_guard import guard

GB = 1_000_000_000
READING = MemoryReading(footprint=5 * GB, limit=10 * GB, swap=GB, pressure_high=False)
EASY = ProgressEvent(iteration=1, it_s=4.0, memory=READING)


def measured(report: ProgressEvent, **memory: Any) -> ProgressEvent:
    return dataclasses.replace(report, memory=dataclasses.replace(report.memory, **memory))


def why(*samples: ProgressEvent, swap_at_start: int | None = GB, median_it_s: float | None = 4.0) -> str | None:
    return guard(samples, swap_at_start=swap_at_start, median_it_s=median_it_s)


def test_enough_memory_raises_nothing() -> None:
    assert why() is None
    assert why(EASY, EASY, EASY) is None


@pytest.mark.parametrize(("used", "over"), [(9_200_000_000, False), (9_200_000_001, True), (20 * GB, True)])
def test_guard_limit_is_92_percent(used: int, over: bool) -> None:
    found = why(measured(EASY, footprint=used))
    assert (found is not None) == over
    assert found is None or f"{used / GB:.2f} GB" in found


def test_only_last_sample_counts_for_limit() -> None:
    assert why(measured(EASY, footprint=20 * GB), EASY) is None


@pytest.mark.parametrize(("swap", "over"), [(3 * GB, False), (3 * GB + 1, True)])
def test_swap_growth_limit_is_two_gigabytes(swap: int, over: bool) -> None:
    found = why(measured(EASY, swap=swap))
    assert (found is not None) == over
    assert found is None or "2.00 GB" in found


SLOW = measured(dataclasses.replace(EASY, it_s=0.99), pressure_high=True)


def test_three_slow_reports_under_pressure() -> None:
    assert why(SLOW, SLOW, SLOW) is not None


@pytest.mark.parametrize(
    "samples",
    [
        (SLOW, SLOW),
        (SLOW, EASY, SLOW),
        (SLOW, SLOW, measured(SLOW, pressure_high=False)),  # slow, but without memory pressure
        (SLOW, SLOW, dataclasses.replace(SLOW, it_s=1.0)),
        (SLOW, SLOW, dataclasses.replace(SLOW, it_s=None)),
    ],
)
def test_other_slow_reports_raise_nothing(samples: tuple[ProgressEvent, ...]) -> None:
    assert why(*samples) is None


def test_unknown_values_raise_nothing() -> None:
    unknown = ProgressEvent(iteration=1, memory=MemoryReading(pressure_high=True))
    assert why(unknown, unknown, unknown, swap_at_start=None, median_it_s=None) is None
    assert why(measured(EASY, footprint=20 * GB, limit=None)) is None
    assert why(measured(EASY, swap=90 * GB), swap_at_start=None) is None
    assert why(SLOW, SLOW, SLOW, median_it_s=None) is None
