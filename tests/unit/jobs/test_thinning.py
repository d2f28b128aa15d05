"""Which reports of an old run stay."""

from __future__ import annotations

import dataclasses
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.model.job import ProgressPoint
from jobs.thinning import STRETCHES, kept

POINT = ProgressPoint(
    attempt=1,
    iteration=0,
    time=0.0,
    train_loss=1.0,
    learning_rate=None,
    it_s=None,
    tok_s=None,
    tokens=None,
    active_bytes=None,
    cache_bytes=None,
    peak_bytes=None,
    footprint_bytes=None,
)
LENGTH = 4_000


def calm(length: int = LENGTH) -> list[ProgressPoint]:
    """A loss that falls, with a little noise."""
    return [
        dataclasses.replace(POINT, iteration=10 * (place + 1), train_loss=2 - place / 4_000 + 0.01 * math.sin(place))
        for place in range(length)
    ]


def stay(points: list[ProgressPoint], marks: tuple[int, ...] = ()) -> list[int]:
    """The places that stay of a run that was never repeated."""
    return kept(points, led_on=[True] * len(points), marks=marks)


def test_a_calm_run_keeps_the_outline() -> None:
    assert STRETCHES < len(stay(calm())) <= 2 * STRETCHES + 6


def test_nothing_of_a_short_run_goes() -> None:
    assert stay(calm(100)) == list(range(100))
    assert stay([]) == []


@settings(max_examples=10)  # each folds thousands of reports
@given(st.dictionaries(st.integers(0, LENGTH - 1), st.sampled_from([9.0, -1.0, math.nan, math.inf]), max_size=8))
def test_whatever_stands_out_stays(strange: dict[int, float]) -> None:
    points = calm()
    for place, loss in strange.items():
        points[place] = dataclasses.replace(points[place], train_loss=loss)
    found = stay(points)
    assert {place for place, loss in strange.items() if not math.isfinite(loss)} <= set(found)
    known = [point.train_loss for point in points if math.isfinite(point.train_loss)]
    left = [points[place].train_loss for place in found if math.isfinite(points[place].train_loss)]
    assert (min(left), max(left)) == (min(known), max(known))


def test_what_the_detector_flags_stays_though_the_outline_has_no_room_for_it() -> None:
    points = calm()
    for place in range(2_000, 2_012):  # within one stretch, of which only the highest would stay
        points[place] = dataclasses.replace(points[place], train_loss=6.0)
    assert set(range(2_000, 2_012)) <= set(stay(points))


def test_reports_around_what_happened_stay() -> None:
    assert {1_233, 1_234, 1_235} <= set(stay(calm(), marks=(12_345,)))  # iterations 12,340, 12,350 and 12,360


def test_reports_with_lost_updates_and_with_the_most_memory_stay() -> None:
    points = calm()
    points[1_001] = dataclasses.replace(points[1_001], skipped=1)
    points[3_003] = dataclasses.replace(points[3_003], peak_bytes=7)
    assert {1_001, 3_003} <= set(stay(points))


def test_the_borders_of_every_attempt_stay_and_where_it_was_given_up() -> None:
    points = [dataclasses.replace(point, attempt=1 if place < 2_000 else 2) for place, point in enumerate(calm())]
    led_on = [place < 1_777 or place >= 2_000 for place in range(LENGTH)]
    assert {0, 1_776, 1_777, 1_999, 2_000, LENGTH - 1} <= set(kept(points, led_on=led_on, marks=()))
