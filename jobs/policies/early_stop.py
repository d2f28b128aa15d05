"""When validation has stopped getting better (policies.md 7). Pure.

Every validation measures the same rows in the same order, so two of them are compared in pairs, row by row: what
makes a row hard or easy falls out, and the error of the difference is far smaller than that of either loss.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs.model.job import Validation

if TYPE_CHECKING:
    from jobs.model.spec import EarlyStop


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedGain:
    """How much lower a later loss is than an earlier one, in nats per token."""

    gain: float  # above 0 where the later one is better
    standard_error: float | None  # of the gain, paired by row; None where the rows are not known


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stop:
    """The run should end, and why."""

    iteration: int  # of the validation that decided it
    best: int  # iteration of the best validation
    text: str  # one line for a person


def difference(earlier: Validation, later: Validation) -> PairedGain:
    """Compare two measurements of the same rows.

    Args:
        earlier: one measurement.
        later: the other.

    Returns:
        The gain in the loss, and the standard error of the mean of the row differences,
        sqrt(sum((d - mean d)^2) / (n (n - 1))).
    """
    gain = earlier.loss - later.loss
    if earlier.row_losses is None or later.row_losses is None or len(earlier.row_losses) != len(later.row_losses):
        return PairedGain(gain=gain, standard_error=None)
    pairs = zip(earlier.row_losses, later.row_losses, strict=True)
    rows = [one - other for one, other in pairs if math.isfinite(one - other)]
    if len(rows) < 2:
        return PairedGain(gain=gain, standard_error=None)
    mean = sum(rows) / len(rows)
    spread = sum((row - mean) ** 2 for row in rows)
    return PairedGain(gain=gain, standard_error=math.sqrt(spread / (len(rows) * (len(rows) - 1))))


def best(validations: Sequence[Validation]) -> Validation | None:
    """Return the validation with the lowest loss, the earliest of equals; None where none is finite."""
    finite = [one for one in validations if math.isfinite(one.loss)]
    return min(finite, key=lambda one: (one.loss, one.iteration), default=None)


def stop(validations: Sequence[Validation], rule: EarlyStop | None) -> Stop | None:
    """Say whether and where a run should have ended; None where it may go on.

    Args:
        validations: those that lead to the present weights, by iteration.
        rule: `lq.early_stop`; None where it is not asked for.

    Returns:
        The first validation after which `patience` of them in a row had brought nothing. Later ones do not change it.
    """
    if rule is None:
        return None
    patience = Patience(rule)
    return next((found for one in validations if (found := patience.add(one)) is not None), None)


class Patience:
    """The same as a fold: of all validations only the best one is remembered with its rows."""

    def __init__(self, rule: EarlyStop) -> None:
        """Begin before the first validation."""
        self._rule = rule
        self._leader: Validation | None = None
        self._waited = 0  # validations in a row that brought nothing
        self._found: Stop | None = None

    def add(self, one: Validation) -> Stop | None:
        """Take in the next validation; return where the run should have ended, from then on for ever."""
        if self._found is not None:
            return self._found
        if self._leader is None or _better(self._leader, one, self._rule):
            self._leader, self._waited = one, 0
            return None
        self._waited += 1
        if self._waited >= self._rule.patience:
            text = _text(self._leader, one, self._waited, self._rule)
            self._found = Stop(iteration=one.iteration, best=self._leader.iteration, text=text)
        return self._found


def _better(leader: Validation, one: Validation, rule: EarlyStop) -> bool:
    if not math.isfinite(one.loss):
        return False
    if not math.isfinite(leader.loss):
        return True
    found = difference(leader, one)
    least = rule.nats + rule.standard_errors * (found.standard_error or 0.0)
    return found.gain > least


def _text(leader: Validation, last: Validation, waited: int, rule: EarlyStop) -> str:
    least = f"{rule.min_delta} nats" if rule.nats or not rule.standard_errors else f"{rule.min_delta}"
    unit = "validation" if waited == 1 else "validations"
    return (
        f"{waited} {unit} in a row brought less than {least} over that of iteration {leader.iteration:,} "
        f"({leader.loss:.4f}; now {last.loss:.4f} at {last.iteration:,})"
    )
