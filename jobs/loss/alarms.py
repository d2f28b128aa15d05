"""Input and output of the loss detector."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.model.job import ProgressPoint, Validation


class Alarm(StrEnum):
    """A kind of problem with the loss of a run (docs/explanation/policies.md, section 1)."""

    SUSPECT = "suspect"  # validate now, delete nothing, mark no checkpoint as healthy
    SPIKE = "spike"
    DRIFT = "drift"
    NOT_FINITE = "not_finite"
    NO_GRADIENT = "no_gradient"  # the model no longer learns
    OVERFITTING = "overfitting"  # only reported; no rollback
    REGRESSED = "regressed"  # only reported; no rollback


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossReport:
    """One progress report."""

    iteration: int  # the last one that it covers
    loss: float  # nats per token, mean over the iterations with a finite loss; nan if there is none
    skipped: int = 0  # iterations whose update was not applied
    grad_norm: float | None = None  # global norm of the last update's gradients, before clipping; None if unknown

    @classmethod
    def of(cls, point: ProgressPoint) -> LossReport:
        """Return a stored report."""
        loss, skipped = point.train_loss, point.skipped or 0
        return cls(iteration=point.iteration, loss=loss, skipped=skipped, grad_norm=point.grad_norm)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValidationLoss:
    """One validation over the whole validation set."""

    iteration: int  # the weights are those after this iteration
    loss: float  # nats per token
    standard_error: float | None  # of the loss, by example; None if unknown

    @classmethod
    def of(cls, validation: Validation) -> ValidationLoss:
        """Return a stored validation."""
        return cls(iteration=validation.iteration, loss=validation.loss, standard_error=validation.standard_error)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossFinding:
    """An alarm and its evidence."""

    alarm: Alarm
    iteration: int  # of the report (its last one) or validation that raised the alarm
    first_flag: int
    """The last iteration of the first flagged report that led to the alarm. For a DRIFT: of the first report after the
    lowest window. For NOT_FINITE: the own iteration. From a validation: the iteration of the first one beyond the
    best."""
    text: str  # one line for the user, with the numbers
    evidence: Mapping[str, float | int | str]  # the numbers of the rule; non-finite ones as text

    def __post_init__(self) -> None:
        words = {
            name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in self.evidence.items()
        }  # JSON has no non-finite numbers
        object.__setattr__(self, "evidence", words)
