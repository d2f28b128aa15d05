"""The validation rules of the loss detector (docs/explanation/policies.md, section 1)."""

from __future__ import annotations

import dataclasses
import math

from jobs.loss.alarms import Alarm, LossFinding, ValidationLoss
from jobs.loss.history import DRIFT_WINDOW, ReportHistory, median, median_and_scale

BEYOND_ERRORS, BEYOND_SHARE, BEYOND_RISE = 3.0, 0.10, 0.05
BEYOND_VALIDATIONS = 2
TRAINING_SCALES, TRAINING_SHARE, TRAINING_RISE = 6.0, 0.20, 0.10


class ValidationHistory:
    """The best validation so far, and the consecutive validations beyond it."""

    def __init__(self) -> None:
        self._best: ValidationLoss | None = None
        self._good = 0  # iteration of the last one that was not beyond the best
        self._beyond: list[int] = []  # iterations of those since then
        self._raised: set[Alarm] = set()  # alarms that these validations do not raise again
        self._overfitting_raised = False

    def is_beyond(self, validation: ValidationLoss) -> bool:
        """Return whether a validation is above the best by more than the tolerance."""
        return self._best is not None and validation.loss > self._best.loss + _tolerance(self._best, validation)

    def add(self, validation: ValidationLoss, reports: ReportHistory, *, in_episode: bool) -> LossFinding | None:
        """Add the next validation. `in_episode`: an alarm of the training loss is active, which explains a rise."""
        if self._best is None or not self.is_beyond(validation):
            self._good, self._beyond, self._raised = validation.iteration, [], set()
            if self._best is None or validation.loss < self._best.loss:
                self._best = validation
            return None
        self._beyond.append(validation.iteration)
        if in_episode:
            self._raised |= {Alarm.SPIKE, Alarm.OVERFITTING}
        training = _compare_training(self._best.iteration, self._good, reports)
        if len(self._beyond) < BEYOND_VALIDATIONS or training is None:
            return None
        alarm = Alarm.SPIKE if training.rose else Alarm.OVERFITTING
        if alarm in self._raised or (alarm is Alarm.OVERFITTING and self._overfitting_raised):
            return None
        self._raised.add(alarm)
        self._overfitting_raised = self._overfitting_raised or alarm is Alarm.OVERFITTING
        return self._finding(alarm, validation, self._best, training)

    def _finding(
        self, alarm: Alarm, validation: ValidationLoss, best: ValidationLoss, training: _TrainingComparison
    ) -> LossFinding:
        tolerance = _tolerance(best, validation)
        evidence: dict[str, float | int | str] = {
            "loss": validation.loss,
            "best": best.loss,
            "best_iteration": best.iteration,
            "tolerance": tolerance,
            "beyond": len(self._beyond),
            **{f"training_{name}": getattr(training, name) for name in ("then", "now", "margin")},
            **{name: getattr(training, name) for name in ("reports_then", "reports_now")},
        }
        if validation.standard_error is not None and math.isfinite(validation.standard_error):
            evidence["standard_error"] = validation.standard_error
        rose = "rose too" if training.rose else "did not rise"
        text = (
            f"validation loss {validation.loss:.3f} at iteration {validation.iteration:,} is "
            f"{validation.loss - best.loss:.3f} above the best {best.loss:.3f} of iteration {best.iteration:,} "
            f"(tolerance {tolerance:.3f}), {len(self._beyond)} consecutive validations beyond it; the training "
            f"loss {rose}: {training.then:.3f} -> {training.now:.3f}"
        )
        return LossFinding(
            alarm=alarm, iteration=validation.iteration, first_flag=self._beyond[0], text=text, evidence=evidence
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _TrainingComparison:
    """The training loss around the best validation, and since validations are beyond it."""

    then: float  # median of the reports around the best validation
    now: float  # median of the last reports after the last good validation
    margin: float
    reports_then: int
    reports_now: int

    @property
    def rose(self) -> bool:
        return self.now - self.then > self.margin


def _compare_training(best: int, good: int, reports: ReportHistory) -> _TrainingComparison | None:
    """Compare the training loss around the best validation with that since the last good one; None without reports.

    The margin is twice the tolerance of a validation, because a rollback depends on it.
    """
    at_best, at_good = reports.count_until(best), reports.count_until(good)
    around = reports.losses[max(0, at_best - DRIFT_WINDOW // 2) : min(at_best + DRIFT_WINDOW // 2, at_good)]
    before = [*filter(math.isfinite, around)] or [*filter(math.isfinite, reports.losses[at_best : at_best + 1])]
    after = [*filter(math.isfinite, reports.losses[at_good:][-DRIFT_WINDOW:])]
    if not before or not after:
        return None
    then, scale = median_and_scale(before)
    noise = TRAINING_SCALES * scale / math.sqrt(min(len(before), len(after)))
    return _TrainingComparison(
        then=then,
        now=median(after),
        margin=max(noise, TRAINING_SHARE * then, TRAINING_RISE),
        reports_then=len(before),
        reports_now=len(after),
    )


def _tolerance(best: ValidationLoss, validation: ValidationLoss) -> float:
    """Return the tolerance; the standard error is that of the validation, or else that of the best."""
    errors = (each.standard_error for each in (validation, best))
    error = next((each for each in errors if each is not None and math.isfinite(each)), 0.0)
    return max(BEYOND_ERRORS * error, BEYOND_SHARE * best.loss, BEYOND_RISE)
