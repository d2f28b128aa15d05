"""Early stopping (docs/explanation/policies.md, section 7).

Every validation measures the same rows in the same order, so that two of them are compared row by row. The standard
error of the paired difference is much smaller than that of either loss.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs.model.job import Validation
from jobs.model.text import counted

if TYPE_CHECKING:
    from jobs.model.spec import EarlyStop


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stop:
    """The early end of a run."""

    iteration: int  # of the validation that decided
    best: int  # iteration of the best validation
    text: str  # one line for the user


def paired_error(earlier: Validation, later: Validation) -> float:
    """Return the standard error of the difference of two validations, paired by row; 0 if the rows are unknown.

    It is that of the mean of the row differences d: sqrt(sum((d - mean d)^2) / (n (n - 1))).
    """
    if earlier.row_losses is None or later.row_losses is None or len(earlier.row_losses) != len(later.row_losses):
        return 0.0
    pairs = zip(earlier.row_losses, later.row_losses, strict=True)
    rows = [before - after for before, after in pairs if math.isfinite(before - after)]
    return statistics.stdev(rows) / math.sqrt(len(rows)) if len(rows) > 1 else 0.0


def best(validations: Sequence[Validation]) -> Validation | None:
    """Return the first validation with the lowest finite loss; None if there is none."""
    finite = [validation for validation in validations if math.isfinite(validation.loss)]
    return min(finite, key=lambda validation: (validation.loss, validation.iteration), default=None)


class Patience:
    """The early end of a run as a fold over its validations, which keeps the rows of the best one only."""

    def __init__(self, rule: EarlyStop) -> None:
        self._rule = rule
        self._best: Validation | None = None
        self._waited = 0  # consecutive validations without an improvement
        self._stop: Stop | None = None

    def add(self, validation: Validation) -> Stop | None:
        """Add the next validation; return the early end once it is decided."""
        if self._stop is not None:
            return self._stop
        if self._best is None or _improves(self._best, validation, self._rule):
            self._best, self._waited = validation, 0
            return None
        self._waited += 1
        if self._waited >= self._rule.patience:
            text = _text(self._best, validation, self._waited, self._rule)
            self._stop = Stop(iteration=validation.iteration, best=self._best.iteration, text=text)
        return self._stop


def _improves(best_so_far: Validation, validation: Validation, rule: EarlyStop) -> bool:
    if not math.isfinite(validation.loss):
        return False
    if not math.isfinite(best_so_far.loss):
        return True
    least = rule.nats + rule.standard_errors * paired_error(best_so_far, validation)
    return best_so_far.loss - validation.loss > least


def _text(best_so_far: Validation, last: Validation, waited: int, rule: EarlyStop) -> str:
    least = f"{rule.min_delta} nats" if rule.nats or not rule.standard_errors else f"{rule.min_delta}"
    return (
        f"{counted(waited, 'consecutive validation')} improved by less than {least} on that of iteration "
        f"{best_so_far.iteration:,} ({best_so_far.loss:.4f}; now {last.loss:.4f} at {last.iteration:,})"
    )
