"""When an attempt should make room before the kernel makes it."""

from __future__ import annotations

import dataclasses

import pytest

from jobs.policies.memory_guard import MemorySample, guard

GB = 1_000_000_000
EASY = MemorySample(footprint_bytes=5 * GB, limit_bytes=10 * GB, swap_bytes=GB, pressure_high=False, it_s=4.0)


def why(*samples: MemorySample, swap_at_start: int | None = GB, median_it_s: float | None = 4.0) -> str | None:
    return guard(samples, swap_at_start=swap_at_start, median_it_s=median_it_s)


def test_with_room_to_spare_nothing_is_said() -> None:
    assert why() is None
    assert why(EASY, EASY, EASY) is None


@pytest.mark.parametrize(("taken", "over"), [(9_200_000_000, False), (9_200_000_001, True), (20 * GB, True)])
def test_more_than_92_percent_of_the_limit_is_too_much(taken: int, over: bool) -> None:
    found = why(dataclasses.replace(EASY, footprint_bytes=taken))
    assert (found is not None) == over
    if over:
        assert found == f"it took {taken / GB:.2f} GB, more than 92% of its limit of 10.00 GB"


def test_only_the_last_sample_counts_for_the_limit() -> None:
    assert why(dataclasses.replace(EASY, footprint_bytes=20 * GB), EASY) is None


@pytest.mark.parametrize(("swap", "over"), [(3 * GB, False), (3 * GB + 1, True)])
def test_two_gigabytes_more_of_swap_than_at_the_start_are_too_much(swap: int, over: bool) -> None:
    found = why(dataclasses.replace(EASY, swap_bytes=swap))
    assert (found is not None) == over
    assert found is None or found.startswith("swap grew by 2.00 GB")


SLOW = dataclasses.replace(EASY, it_s=0.99, pressure_high=True)


def test_three_reports_at_a_crawl_under_pressure_are_too_much() -> None:
    found = why(SLOW, SLOW, SLOW)
    assert found is not None
    assert "3 reports ran at under 25% of its median speed (4 it/s)" in found


@pytest.mark.parametrize(
    "samples",
    [
        (SLOW, SLOW),
        (SLOW, EASY, SLOW),
        (SLOW, SLOW, dataclasses.replace(SLOW, pressure_high=False)),  # slow, but memory is not short: not its doing
        (SLOW, SLOW, dataclasses.replace(SLOW, it_s=1.0)),
        (SLOW, SLOW, dataclasses.replace(SLOW, it_s=None)),
    ],
)
def test_anything_less_is_not(samples: tuple[MemorySample, ...]) -> None:
    assert why(*samples) is None


def test_what_is_not_known_is_never_held_against_it() -> None:
    unknown = MemorySample(footprint_bytes=None, limit_bytes=None, swap_bytes=None, pressure_high=True, it_s=None)
    assert why(unknown, unknown, unknown, swap_at_start=None, median_it_s=None) is None
    assert why(dataclasses.replace(EASY, footprint_bytes=20 * GB, limit_bytes=None)) is None
    assert why(dataclasses.replace(EASY, swap_bytes=90 * GB), swap_at_start=None) is None
    assert why(SLOW, SLOW, SLOW, median_it_s=None) is None
