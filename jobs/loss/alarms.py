"""What the loss detector is told, and what it says. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from enum import StrEnum


class Alarm(StrEnum):
    """What may be wrong with a run."""

    SUSPECT = "suspect"  # validate now, prune nothing, call no checkpoint healthy
    SPIKE = "spike"
    DRIFT = "drift"
    NOT_FINITE = "not_finite"
    OVERFITTING = "overfitting"  # to be told, never a reason to go back


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossReport:
    """One progress report."""

    iteration: int  # the last one it covers
    loss: float  # nats per token, mean over the iterations whose loss was finite; nan where none was
    skipped: int = 0  # its iterations whose update was not applied


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValidationLoss:
    """One validation over the whole validation set."""

    iteration: int  # with the weights after this one
    loss: float  # nats per token
    standard_error: float | None  # of the loss, by example; None where it is not known


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossFinding:
    """What a report or a validation gave away."""

    alarm: Alarm
    iteration: int  # the last one of the report, or that of the validation, that raised it
    first_flag: int
    """The last iteration of the first flagged report that led to it. DRIFT: of the first report after the lowest
    stretch. NOT_FINITE: its own. From a validation: the iteration of the first one beyond the best."""
    text: str  # one line for a person, with the numbers
    evidence: Mapping[str, float | int | str]  # every number the rule saw; those not finite as words

    def __post_init__(self) -> None:
        words = {
            name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in self.evidence.items()
        }  # JSON has no numbers for them
        object.__setattr__(self, "evidence", words)
