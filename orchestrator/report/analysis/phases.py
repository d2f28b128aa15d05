"""The phases of a run, found in its train loss by rule. Pure NumPy.

The level is the running median of the reports, so that no single batch begins a phase. In this order:

- spike: from the report where the level is more than half and 0.15 nats above the lowest level before it (the loss
  guard's own measures, docs/explanation/policies.md 1) and more than ten standard errors of the median, to its highest
  report; recovery: from there until the level is within a tenth of that lowest one again, or to the end.
- initial learning: until nine tenths of the way from the first level to the lowest one before any spike are done.
- convergence: the last stretch, of a tenth of the reports at least, in which the level stays within a tenth of its end
  (or 0.02 nats, or three standard errors of the median, where these are more).
- further training: what lies between.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from jobs.model.job import ProgressPoint
from orchestrator.report.analysis.curves import Floats, running_median
from orchestrator.report.facts import Phase

INITIAL, FURTHER, SPIKE, RECOVERY, CONVERGENCE = (
    "initial learning",
    "further training",
    "spike",
    "recovery",
    "convergence",
)
FEWEST_REPORTS = 8
WIDTH, MOST_WIDTHS = 21, 100
"""The median is over so many reports, or over so many parts of the run where that is more."""

RISE, LEAST_RISE, LEAST_ERRORS = 1.5, 0.15, 10
BACK, LEAST_BACK = 1.1, 0.02
LEARNED = 0.9
CALM, LEAST_CALM, CALM_ERRORS = 0.1, 0.02, 3
LEAST_SHARE = 0.1
MAD_TO_DEVIATION = 1.4826
MEDIAN_ERROR = 1.2533
"""Standard error of a median of normal values, in parts of that of their mean."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Stretch:
    """A phase by places in the series: from the end of report `first` to the end of report `last`."""

    name: str
    first: int
    last: int
    peak: int | None = None
    back: bool | None = None


def phases(points: Sequence[ProgressPoint]) -> tuple[Phase, ...]:
    """Return the phases of a run, by iteration; none where there are too few reports to tell.

    Args:
        points: the progress reports that count, by iteration.
    """
    known = [point for point in points if math.isfinite(point.train_loss)]
    if len(known) < FEWEST_REPORTS:
        return ()
    losses = np.array([point.train_loss for point in known])
    width = min(max(WIDTH, len(known) // MOST_WIDTHS // 2 * 2 + 1), len(known) // 30 * 2 + 1)
    level = running_median(losses, width)
    error = MAD_TO_DEVIATION * float(np.median(np.abs(losses - level))) * MEDIAN_ERROR / math.sqrt(width)
    disturbed = _spikes(losses, level, error)
    calm_from = disturbed[-1].last if disturbed else 0
    found = [*_initial(level, disturbed), *disturbed]
    end = _convergence(level, max(calm_from, found[0].last if found else 0), error)
    settled = disturbed[-1].back is not False if disturbed else True
    if end is not None and settled:
        found.append(end)
    return tuple(_phase(one, known, level, losses) for one in _filled(found, len(known) - 1))


def _spikes(losses: Floats, level: Floats, error: float) -> list[_Stretch]:
    least = max(LEAST_RISE, LEAST_ERRORS * error)
    found: list[_Stretch] = []
    place = 1
    lowest = float(level[0])
    while place < len(level):
        here = float(level[place])
        if here > RISE * lowest and here - lowest > least:
            home = max(BACK * lowest, lowest + LEAST_BACK, lowest + LEAST_ERRORS / 2 * error)
            later = np.flatnonzero(level[place:] <= home)
            back = len(later) > 0
            end = place + int(later[0]) if back else len(level) - 1
            peak = place + int(np.argmax(losses[place : end + 1]))
            found.append(_Stretch(name=SPIKE, first=place - 1, last=peak, peak=peak))
            if end > peak:
                found.append(_Stretch(name=RECOVERY, first=peak, last=end, back=back))
            place = end
        lowest = min(lowest, float(level[place]))
        place += 1
    return found


def _initial(level: Floats, disturbed: Sequence[_Stretch]) -> list[_Stretch]:
    before = level[: disturbed[0].first + 1] if disturbed else level
    fall = level[0] - before.min()
    if fall <= 0:
        return []
    reached = np.flatnonzero(before <= level[0] - LEARNED * fall)
    return [_Stretch(name=INITIAL, first=-1, last=int(reached[0]))]


def _convergence(level: Floats, after: int, error: float) -> _Stretch | None:
    tail = level[-max(1, len(level) // 10) :]
    end = float(np.median(tail))
    band = max(CALM * abs(end), LEAST_CALM, CALM_ERRORS * error)
    outside = np.flatnonzero(np.abs(level - end) > band)
    first = max(after, int(outside[-1]) + 1 if len(outside) else 0)
    if len(level) - 1 - first < LEAST_SHARE * len(level):
        return None
    return _Stretch(name=CONVERGENCE, first=first, last=len(level) - 1)


def _filled(found: Sequence[_Stretch], end: int) -> list[_Stretch]:
    """Return the stretches with what lies between them."""
    whole: list[_Stretch] = []
    reached = -1
    for one in found:
        if one.first > reached:
            whole.append(_Stretch(name=FURTHER, first=reached, last=one.first))
        whole.append(one)
        reached = one.last
    if reached < end:
        whole.append(_Stretch(name=FURTHER, first=reached, last=end))
    return whole


def _phase(one: _Stretch, points: Sequence[ProgressPoint], level: Floats, losses: Floats) -> Phase:
    first, last = points[max(one.first, 0)], points[one.last]
    return Phase(
        name=one.name,
        first=0 if one.first < 0 else first.iteration,
        last=last.iteration,
        loss_first=float(level[max(one.first, 0)]),
        loss_last=float(level[one.last]) if one.peak is None else float(losses[one.last]),
        peak_iteration=None if one.peak is None else points[one.peak].iteration,
        peak_loss=None if one.peak is None else float(losses[one.peak]),
        seconds=_seconds(points[max(one.first, 0) : one.last + 1]),
        back=one.back,
    )


def _seconds(points: Sequence[ProgressPoint]) -> float:
    """Return the time between the reports; what lies between two attempts is not the run's."""
    pairs = itertools.pairwise(points)
    return sum(max(0.0, after.time - before.time) for before, after in pairs if before.attempt == after.attempt)
