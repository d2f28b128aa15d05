"""The validation rules of the loss detector (docs/explanation/policies.md, section 1)."""

from __future__ import annotations

import dataclasses
import math

from jobs.loss.alarms import Alarm, LossFinding, ValidationLoss
from jobs.loss.history import DRIFT_WINDOW, ReportHistory, deviation, median, median_and_scale

BEYOND_ERRORS, BEYOND_SHARE, BEYOND_RISE = 3.0, 0.10, 0.05
BEYOND_VALIDATIONS = 2
TRAINING_SCALES, TRAINING_SHARE, TRAINING_RISE = 6.0, 0.20, 0.10
NORMAL, MEDIAN_ERROR = 1.96, 1.2533
"""95 % of a normal distribution, and the standard error of its median relative to that of its mean."""

MEMORIZED = 0.5
"""A steady training loss below this share of the best validation loss means that the training rows are memorized."""

_ONLY_REPORTED = frozenset({Alarm.OVERFITTING, Alarm.REGRESSED})


class ValidationHistory:
    """The best validation so far, and the consecutive validations beyond it."""

    def __init__(self) -> None:
        self._best: ValidationLoss | None = None
        self._good = 0  # iteration of the last one that was not beyond the best
        self._beyond: list[int] = []  # iterations of those since then
        self._raised: set[Alarm] = set()  # alarms that these validations do not raise again
        self._ever_raised: set[Alarm] = set()  # those that are only reported, once per run

    def is_beyond(self, validation: ValidationLoss) -> bool:
        """Return whether a validation is above the best by more than the tolerance."""
        return self._best is not None and validation.loss > self._best.loss + _tolerance(self._best, validation)

    def add(
        self, validation: ValidationLoss, reports: ReportHistory, *, in_episode: bool, in_doubt: bool
    ) -> LossFinding | None:
        """Add the next validation. `in_episode`: an alarm of the training loss is active, which explains a rise."""
        if self._best is None or not self.is_beyond(validation):
            self._good, self._beyond, self._raised = validation.iteration, [], set()
            if self._best is None or validation.loss < self._best.loss:
                self._best = validation
            return None
        self._beyond.append(validation.iteration)
        if in_episode:
            self._raised |= {Alarm.SPIKE, *_ONLY_REPORTED}
        training = _compare_training(self._best.iteration, self._good, reports)
        if len(self._beyond) < BEYOND_VALIDATIONS or training is None:
            return None
        alarm = training.alarm(self._best.loss)
        if alarm in self._raised or alarm in self._ever_raised or (in_doubt and alarm is not Alarm.SPIKE):
            return None
        self._raised.add(alarm)
        if alarm is not Alarm.SPIKE:
            self._ever_raised |= _ONLY_REPORTED
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
            **{f"training_{name}": getattr(training, name) for name in ("then", "now", "margin", "interval")},
            **{name: getattr(training, name) for name in ("reports_then", "reports_now")},
        }
        if validation.standard_error is not None and math.isfinite(validation.standard_error):
            evidence["standard_error"] = validation.standard_error
        rise = training.now - training.then
        word = "rose too" if alarm is Alarm.SPIKE else "rose by less than the tolerance of a spike"
        if rise <= training.interval:
            word = "fell" if rise < -training.interval else "did not change significantly"
        text = (
            f"validation loss {validation.loss:.3f} at iteration {validation.iteration:,} is "
            f"{validation.loss - best.loss:.3f} above the best {best.loss:.3f} of iteration {best.iteration:,} "
            f"(tolerance {tolerance:.3f}), {len(self._beyond)} consecutive validations beyond it; the training "
            f"loss {word} ({training.then:.3f} -> {training.now:.3f}, tolerance {training.margin:.3f})"
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
    interval: float  # of the difference at 95 %, on either side
    reports_then: int
    reports_now: int

    def alarm(self, best: float) -> Alarm:
        """Return the alarm of validations beyond the best: OVERFITTING if the training loss falls or is memorized."""
        rise = self.now - self.then
        if rise > self.margin:
            return Alarm.SPIKE
        memorized = rise <= self.interval and self.now < MEMORIZED * best
        return Alarm.OVERFITTING if rise < -self.interval or memorized else Alarm.REGRESSED


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
    error = scale / math.sqrt(min(len(before), len(after)))
    errors = (deviation(part) / math.sqrt(len(part)) for part in (before, after))
    return _TrainingComparison(
        then=then,
        now=median(after),
        margin=max(TRAINING_SCALES * error, TRAINING_SHARE * then, TRAINING_RISE),
        interval=NORMAL * MEDIAN_ERROR * math.hypot(*errors),
        reports_then=len(before),
        reports_now=len(after),
    )


def _tolerance(best: ValidationLoss, validation: ValidationLoss) -> float:
    """Return the tolerance; the standard error is that of the validation, or else that of the best."""
    errors = (each.standard_error for each in (validation, best))
    error = next((each for each in errors if each is not None and math.isfinite(each)), 0.0)
    return max(BEYOND_ERRORS * error, BEYOND_SHARE * best.loss, BEYOND_RISE)
