"""The phases of a run, found in its train loss.

The level is the running median of the reports, so that a single batch cannot start a phase. In this order:

- spike: starts when the level is more than half and 0.15 nats above the lowest level so far (the thresholds of the
  loss guard) and more than ten standard errors of the median above it; ends at the highest report.
- recovery: until the level is within a tenth of that lowest level again, or until the end.
- initial learning: the first nine tenths of the fall from the first level to the lowest one before any spike.
- convergence: the last stretch, at least a tenth of the reports, whose level stays within a tenth of the final level
  (or within 0.02 nats, or three standard errors of the median, the largest of the three).
- further training: everything else.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from jobs.model.job import ProgressPoint
from jobs.policies.verdict import Code, Verdict
from orchestrator.report.analysis.curves import Floats, running_median
from orchestrator.report.facts import Phase

INITIAL, FURTHER, SPIKE, RECOVERY = "initial learning", "further training", "spike", "recovery"
CONVERGENCE, NO_LEARNING = "convergence", "no learning"

_NOT_SETTLED = {Code.DIVERGED, Code.OVERFIT, Code.REGRESSED, Code.UNDERTRAINED}
"""Verdicts that a flat train loss at the end, called convergence, would contradict."""

FEWEST_REPORTS = 8
WIDTH, MOST_WIDTHS = 21, 100
"""The median is over 21 reports, or over one of 100 parts of the run if that is more."""

RISE, LEAST_RISE, LEAST_ERRORS = 1.5, 0.15, 10
BACK, LEAST_BACK = 1.1, 0.02
LEARNED = 0.9
CALM, LEAST_CALM, CALM_ERRORS = 0.1, 0.02, 3
LEAST_SHARE = 0.1
MAD_TO_DEVIATION = 1.4826
MEDIAN_ERROR = 1.2533
"""Standard error of the median of normal values, as a multiple of that of their mean."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Stretch:
    """A phase by positions in the series: from the end of report `first` to the end of report `last`."""

    name: str
    first: int
    last: int
    peak: int | None = None
    back: bool | None = None


def phases(
    points: Sequence[ProgressPoint], verdict: Verdict | None = None, *, stuck_from: int | None = None
) -> tuple[Phase, ...]:
    """Return the phases of a run, by iteration; none if there are too few reports.

    No phase contradicts the verdict, if there is one. Nothing is learned from the iteration `stuck_from` on.
    """
    known = [point for point in points if math.isfinite(point.train_loss)]
    if len(known) < FEWEST_REPORTS:
        return ()
    losses = np.array([point.train_loss for point in known])
    width = min(max(WIDTH, len(known) // MOST_WIDTHS // 2 * 2 + 1), len(known) // 30 * 2 + 1)
    level = running_median(losses, width)
    error = MAD_TO_DEVIATION * float(np.median(np.abs(losses - level))) * MEDIAN_ERROR / math.sqrt(width)
    spikes = _spikes(losses, level, error)
    learned = verdict is None or verdict.good_from != 0
    found = [*(_initial(level, spikes, error) if learned else ()), *spikes]
    codes = set() if verdict is None else {verdict.code, verdict.otherwise}
    if stuck_from is not None:
        first = next(place for place, point in enumerate(known) if point.iteration >= stuck_from)
        found = [stretch for stretch in found if stretch.last <= first]
        found.append(_Stretch(name=NO_LEARNING, first=first, last=len(known) - 1))
    elif not codes & _NOT_SETTLED and (not spikes or spikes[-1].back is not False):
        calm_from = max((stretch.last for stretch in found), default=0)
        found += _convergence(level, calm_from, error)
    return tuple(_phase(stretch, known, level, losses) for stretch in _filled(found, len(known) - 1))


def _spikes(losses: Floats, level: Floats, error: float) -> list[_Stretch]:
    least = max(LEAST_RISE, LEAST_ERRORS * error)
    found: list[_Stretch] = []
    place = 1
    lowest = float(level[0])
    while place < len(level):
        here = float(level[place])
        if here > RISE * lowest and here - lowest > least:
            target = max(BACK * lowest, lowest + LEAST_BACK, lowest + LEAST_ERRORS / 2 * error)
            later = np.flatnonzero(level[place:] <= target)
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


def _initial(level: Floats, spikes: Sequence[_Stretch], error: float) -> list[_Stretch]:
    before = level[: spikes[0].first + 1] if spikes else level
    fall = level[0] - before.min()
    if fall <= max(LEAST_CALM, CALM_ERRORS * error):
        return []
    reached = np.flatnonzero(before <= level[0] - LEARNED * fall)
    return [_Stretch(name=INITIAL, first=-1, last=int(reached[0]))]


def _convergence(level: Floats, after: int, error: float) -> list[_Stretch]:
    tail = level[-max(1, len(level) // 10) :]
    end = float(np.median(tail))
    band = max(CALM * abs(end), LEAST_CALM, CALM_ERRORS * error)
    outside = np.flatnonzero(np.abs(level - end) > band)
    first = max(after, int(outside[-1]) + 1 if len(outside) else 0)
    if len(level) - 1 - first < LEAST_SHARE * len(level):
        return []
    return [_Stretch(name=CONVERGENCE, first=first, last=len(level) - 1)]


def _filled(found: Sequence[_Stretch], end: int) -> list[_Stretch]:
    """Return the stretches with `FURTHER` in the gaps."""
    filled: list[_Stretch] = []
    reached = -1
    for stretch in found:
        if stretch.first > reached:
            filled.append(_Stretch(name=FURTHER, first=reached, last=stretch.first))
        filled.append(stretch)
        reached = stretch.last
    if reached < end:
        filled.append(_Stretch(name=FURTHER, first=reached, last=end))
    return filled


def _phase(stretch: _Stretch, points: Sequence[ProgressPoint], level: Floats, losses: Floats) -> Phase:
    first, last = points[max(stretch.first, 0)], points[stretch.last]
    return Phase(
        name=stretch.name,
        first=0 if stretch.first < 0 else first.iteration,
        last=last.iteration,
        loss_first=float(level[max(stretch.first, 0)]),
        loss_last=float(level[stretch.last]) if stretch.peak is None else float(losses[stretch.last]),
        peak_iteration=None if stretch.peak is None else points[stretch.peak].iteration,
        peak_loss=None if stretch.peak is None else float(losses[stretch.peak]),
        seconds=_seconds(points[max(stretch.first, 0) : stretch.last + 1]),
        back=stretch.back,
    )


def _seconds(points: Sequence[ProgressPoint]) -> float:
    """Return the time between the reports, without the time between attempts."""
    pairs = itertools.pairwise(points)
    return sum(max(0.0, after.time - before.time) for before, after in pairs if before.attempt == after.attempt)
