"""What validations beyond the best mean: the rule of the loss detector (policies.md 1). Pure."""

from __future__ import annotations

import dataclasses
import math

from jobs.loss.alarms import Alarm, LossFinding, ValidationLoss
from jobs.loss.history import STRETCH, Reports, finite, median, median_and_scale

WORSE_ERRORS, WORSE_SHARE, WORSE_RISE = 3.0, 0.10, 0.05
WORSE_VALIDATIONS = 2
UP_SCALES, UP_SHARE, UP_RISE = 6.0, 0.20, 0.10  # policies.md leaves open when the training loss is "up"


class Validations:
    """The best validation so far, and those in a row that were beyond it."""

    def __init__(self) -> None:
        self._best: ValidationLoss | None = None
        self._good = 0  # iteration of the last one that was not beyond
        self._beyond: list[int] = []  # iterations of those since then
        self._told: set[Alarm] = set()  # what need not be said of them (any more)
        self._overfitting_told = False

    def is_beyond(self, validated: ValidationLoss) -> bool:
        """Whether one lies further above the best than is tolerated."""
        return self._best is not None and validated.loss > self._best.loss + _tolerance(self._best, validated)

    def add(self, validated: ValidationLoss, reports: Reports, *, in_episode: bool) -> LossFinding | None:
        """Take in the next one, whose loss is finite.

        Args:
            validated: the validation.
            reports: those up to it.
            in_episode: whether the training loss has raised an alarm that is not over.
        """
        if self._best is None or not self.is_beyond(validated):
            self._good, self._beyond, self._told = validated.iteration, [], set()
            if self._best is None or validated.loss < self._best.loss:
                self._best = validated
            return None
        self._beyond.append(validated.iteration)
        if in_episode:  # it explains them, until one is good again
            self._told |= {Alarm.SPIKE, Alarm.OVERFITTING}
        training = _training_since(self._best.iteration, self._good, reports)
        if len(self._beyond) < WORSE_VALIDATIONS or training is None:
            return None
        alarm = Alarm.SPIKE if training.up else Alarm.OVERFITTING
        if alarm in self._told or (alarm is Alarm.OVERFITTING and self._overfitting_told):
            return None
        self._told.add(alarm)
        self._overfitting_told = self._overfitting_told or alarm is Alarm.OVERFITTING
        return self._finding(alarm, validated, self._best, training)

    def _finding(
        self, alarm: Alarm, validated: ValidationLoss, best: ValidationLoss, training: _Training
    ) -> LossFinding:
        tolerance = _tolerance(best, validated)
        evidence: dict[str, float | int | str] = {
            "loss": validated.loss,
            "best": best.loss,
            "best_iteration": best.iteration,
            "tolerance": tolerance,
            "beyond": len(self._beyond),
            "training_then": training.then,
            "training_now": training.now,
            "training_margin": training.margin,
            "reports_then": training.reports_then,
            "reports_now": training.reports_now,
        }
        if validated.standard_error is not None and math.isfinite(validated.standard_error):
            evidence["standard_error"] = validated.standard_error
        return LossFinding(
            alarm=alarm,
            iteration=validated.iteration,
            first_flag=self._beyond[0],
            text=f"validation loss {validated.loss:.3f} at iteration {validated.iteration:,}: "
            f"{validated.loss - best.loss:.3f} above the best {best.loss:.3f} of iteration {best.iteration:,} "
            f"({tolerance:.3f} is tolerated), {len(self._beyond)} in a row; the training loss "
            f"{'rose too' if training.up else 'did not rise'}: {training.then:.3f} -> {training.now:.3f}",
            evidence=evidence,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Training:
    """The training loss since validations are beyond the best, and around the best."""

    then: float  # median of the reports around the best validation
    now: float  # median of the last reports, none from before the first validation beyond
    margin: float  # what the difference has to exceed to count as a rise
    reports_then: int
    reports_now: int

    @property
    def up(self) -> bool:
        return self.now - self.then > self.margin


def _training_since(best: int, good: int, reports: Reports) -> _Training | None:
    """Compare the training loss around the best validation with that since the last good one, in medians.

    A rise has to be twice what is tolerated of a validation, because a rollback hangs on it, and more than the noise.

    Args:
        best: iteration of the best validation.
        good: iteration of the last validation that was not beyond it.
        reports: all of them.
    """
    at_best, at_good = reports.count_until(best), reports.count_until(good)
    around = reports.losses[max(0, at_best - STRETCH // 2) : min(at_best + STRETCH // 2, at_good)]
    before = finite(around) or finite(reports.losses[at_best : at_best + 1])
    after = finite(reports.losses[at_good:][-STRETCH:])
    if not before or not after:
        return None
    then, scale = median_and_scale(before)
    spread = UP_SCALES * scale / math.sqrt(min(len(before), len(after)))
    return _Training(
        then=then,
        now=median(after),
        margin=max(spread, UP_SHARE * then, UP_RISE),
        reports_then=len(before),
        reports_now=len(after),
    )


def _tolerance(best: ValidationLoss, validated: ValidationLoss) -> float:
    """Return how far a validation may lie above the best; its own standard error counts, else that of the best."""
    errors = (each.standard_error for each in (validated, best))
    error = next((each for each in errors if each is not None and math.isfinite(each)), 0.0)
    return max(WORSE_ERRORS * error, WORSE_SHARE * best.loss, WORSE_RISE)
