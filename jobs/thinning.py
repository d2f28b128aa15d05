"""Which progress reports of a run that ended long ago stay in the store: the curve looks the same. Pure.

Nothing is lost: events.jsonl keeps every one. What stays is what people look for in an old curve: its outline, where it
was measured, what was flagged, where an attempt began and ended, what was not finite, and the most memory it took.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Collection, Iterable, Iterator, Sequence

from jobs.loss.alarms import Report
from jobs.loss.detector import Detector
from jobs.model.job import ProgressPoint

AFTER_S = 30 * 86_400.0
"""How long after its end a run stays whole."""

FEWEST = 2_000
"""Runs of no more reports stay whole for ever."""

STRETCHES = 300
"""The lowest and the highest of each of so many stretches stay: more than a picture has room for."""


def kept(points: Sequence[ProgressPoint], *, led_on: Sequence[bool], marks: Collection[int]) -> list[int]:
    """Return which reports stay, by their places.

    Args:
        points: every report of a run, in the order in which they came.
        led_on: for each, whether it leads to the weights the run ended with, and was not repeated or given up.
        marks: iterations at which something happened; the reports around them stay.
    """
    lives = _by_attempt(points)
    places = {0, len(points) - 1} if points else set()
    places |= set(_outline(points))
    places |= {place for place, point in enumerate(points) if not math.isfinite(point.train_loss) or point.skipped}
    places |= set(_most(points))
    for life in lives:
        places |= set(_borders(life, led_on))
        places |= set(_around(points, life, marks))
        places |= set(_flagged(points, life))
    return sorted(places)


def _by_attempt(points: Sequence[ProgressPoint]) -> list[list[int]]:
    lives: dict[int, list[int]] = {}
    for place, point in enumerate(points):
        lives.setdefault(point.attempt, []).append(place)
    return list(lives.values())


def _outline(points: Sequence[ProgressPoint]) -> Iterator[int]:
    size = -(-len(points) // STRETCHES)
    for start in range(0, len(points), max(1, size)):
        stretch = range(start, min(start + size, len(points)))
        known = [place for place in stretch if math.isfinite(points[place].train_loss)]
        if known:
            yield min(known, key=lambda place: points[place].train_loss)
            yield max(known, key=lambda place: points[place].train_loss)


def _most(points: Sequence[ProgressPoint]) -> Iterator[int]:
    """Yield the reports with the most memory of each kind."""
    for name in ("peak_bytes", "footprint_bytes", "swap_bytes"):
        taken = ((getattr(point, name), place) for place, point in enumerate(points))
        known = [one for one in taken if one[0] is not None]
        if known:
            yield max(known)[1]


def _borders(life: Sequence[int], led_on: Sequence[bool]) -> Iterable[int]:
    """Return the first and the last report of an attempt, and those between which it was given up."""
    turn = next((index for index, place in enumerate(life) if not led_on[place]), len(life))
    return (life[0], life[-1], *life[max(0, turn - 1) : turn + 1])


def _around(points: Sequence[ProgressPoint], life: Sequence[int], marks: Collection[int]) -> Iterator[int]:
    iterations = [points[place].iteration for place in life]
    for mark in marks:
        here = bisect.bisect_left(iterations, mark)
        yield from life[max(0, here - 1) : here + 2]


def _flagged(points: Sequence[ProgressPoint], life: Sequence[int]) -> Iterator[int]:
    """Yield the reports that the loss detector flags, were the attempt a run of its own."""
    first = points[life[0]]
    detector = Detector(warm_up=0, steps_per_report=max(1, first.iteration))
    for place in life:
        point = points[place]
        detector.report(Report(iteration=point.iteration, loss=point.train_loss, skipped=point.skipped or 0))
        if detector.was_flagged(point.iteration):
            yield place
