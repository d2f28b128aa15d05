"""From the series of a run to what the verdict's rules look at. Pure; judges nothing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from jobs.model.job import ProgressPoint, Validation
from jobs.policies import early_stop
from jobs.policies.verdict import LAST_STRETCH, Difference, Evidence, Point
from orchestrator.report.bootstrap import Bootstrap, by_errors

FEWEST_REPORTS = 8
"""After the best, below which nothing is said about the train loss there."""


class Comparison:
    """The validations of one run, ready to be compared row by row where their rows are known."""

    def __init__(self, validations: Sequence[Validation], learned: Sequence[int] | None) -> None:
        """Line the rows up.

        Args:
            validations: by iteration.
            learned: supervised tokens of each validation row; None where that was not told.
        """
        self._kept: list[int] = []  # rows with a token to learn; the others have no loss
        self._bootstrap: Bootstrap | None = None
        usual = max((one.examples for one in validations), default=0)
        rows = [one.row_losses for one in validations if one.row_losses and len(one.row_losses) == usual]
        if learned is None or len(learned) < usual or not rows:
            return
        self._kept = [row for row in range(usual) if learned[row] > 0]
        self._usual = usual
        if len(self._kept) > 1:
            self._bootstrap = Bootstrap([learned[row] for row in self._kept])

    def interval(self, one: Validation) -> tuple[float, float] | None:
        """Return the 95 % interval of a loss: by bootstrap, or by its standard error, or none."""
        rows = self._rows(one)
        if self._bootstrap is not None and rows is not None:
            return self._bootstrap.interval(rows)
        if one.standard_error is None or not math.isfinite(one.loss):
            return None
        apart = by_errors(one.loss, one.standard_error, 0.0, one.examples)
        return apart.low, apart.high

    def differences(self, ones: Sequence[Validation], reference: Validation | None) -> list[Difference | None]:
        """Return each loss minus that of the reference; None where neither rows nor errors are known."""
        if reference is None:
            return [None] * len(ones)
        base, rows = self._rows(reference), [self._rows(one) for one in ones]
        places = [place for place, row in enumerate(rows) if row is not None]
        paired: dict[int, Difference] = {}
        if self._bootstrap is not None and base is not None and places:
            known = [row for row in rows if row is not None]
            paired = dict(zip(places, self._bootstrap.differences(known, base), strict=True))
        return [paired.get(place) or _unpaired(one, reference) for place, one in enumerate(ones)]

    def _rows(self, one: Validation) -> list[float] | None:
        losses = one.row_losses
        if self._bootstrap is None or losses is None or len(losses) != self._usual:
            return None
        kept = [losses[row] for row in self._kept]
        return kept if math.isfinite(sum(kept)) else None


def _unpaired(one: Validation, reference: Validation) -> Difference | None:
    if one.standard_error is None or reference.standard_error is None or not math.isfinite(one.loss):
        return None
    return by_errors(one.loss - reference.loss, one.standard_error, reference.standard_error, one.examples)


def evidence(
    validations: Sequence[Validation],
    points: Sequence[ProgressPoint],
    comparison: Comparison,
    *,
    iterations: int,
    guarded: str | None,
    also_trained: int | None,
) -> Evidence:
    """Return what the rules look at.

    Args:
        validations: that count, by iteration.
        points: the progress reports that count, by iteration.
        comparison: of these validations.
        iterations: completed.
        guarded: why the loss guard ended the run; None where it did not.
        also_trained: validation rows that are training rows too; None where nobody looked.
    """
    best = early_stop.best(validations)
    gaps = comparison.differences(validations, best)
    return Evidence(
        guarded=guarded,
        iterations=iterations,
        points=[
            Point(
                iteration=one.iteration,
                loss=one.loss,
                standard_error=one.standard_error,
                rows=one.examples,
                minus_best=gap,
            )
            for one, gap in zip(validations, gaps, strict=True)
        ],
        last_stretch=_last_stretch(validations, comparison, iterations),
        train_after_best=None if best is None else trend(points, after=best.iteration),
        also_trained=also_trained,
    )


def _last_stretch(validations: Sequence[Validation], comparison: Comparison, iterations: int) -> Difference | None:
    """Return the last validation minus the last one before the last stretch of the run began."""
    before = [one for one in validations[:-1] if one.iteration <= LAST_STRETCH * iterations]
    if not before:
        return None
    return comparison.differences(validations[-1:], before[-1])[0]


def trend(points: Sequence[ProgressPoint], *, after: int) -> Difference | None:
    """Return how the train loss moved: the mean of the later half of the reports minus that of the earlier half.

    Args:
        points: by iteration.
        after: only reports that lie wholly after this iteration count.
    """
    losses = [
        point.train_loss
        for before, point in zip((None, *points[:-1]), points, strict=True)
        if before is not None and before.iteration >= after and math.isfinite(point.train_loss)
    ]
    if len(losses) < FEWEST_REPORTS:
        return None
    early, late = losses[: len(losses) // 2], losses[len(losses) // 2 :]
    one, other = (math.sqrt(statistics.variance(half) / len(half)) for half in (late, early))
    return by_errors(statistics.fmean(late) - statistics.fmean(early), one, other, len(losses))
