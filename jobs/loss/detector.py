"""The loss detector (docs/explanation/policies.md, section 1): raises alarms on reports and validations.

It is a fold over the reports that lead to the current weights. After a resume or a rollback, lq folds these reports
again, so there is no state to save. jobs/policies decides what lq does about an alarm.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from jobs.loss.alarms import Alarm, LossFinding, LossReport, ValidationLoss
from jobs.loss.history import (
    DRIFT_WINDOW,
    SKIPPED_SHARE,
    BaselineComparison,
    Drift,
    DriftWindow,
    ReportHistory,
    SkippedUpdates,
    median,
    median_and_scale,
)
from jobs.loss.validations import ValidationHistory

BASELINE = 40  # unflagged reports
MIN_BASELINE = 15
SPIKE_WINDOW, SPIKE_FLAGS = 4, 3
EARLY_RATIO, EARLY_RISE, EARLY_REPORTS = 1.5, 1.0, 5
SUSPECT_ENDS_AFTER = 2  # consecutive unflagged reports
EPISODE_ENDS_AFTER = 20  # consecutive unflagged reports

NO_GRADIENT = 1e-12
"""Gradient norm up to which an optimizer changes no weight: Adam divides by at least its eps of 1e-8."""

NO_GRADIENT_REPORTS = 10  # consecutive reports
NO_GRADIENT_LOSS = 0.05
"""Nats per token. Below it a model has learned its rows, and its gradients may round to 0."""


class LossDetector:
    """The state of the fold.

    SPIKE, DRIFT and NOT_FINITE are raised once per episode, which ends after 20 consecutive unflagged reports. A run
    that continues after an alarm is thus one incident. NO_GRADIENT is raised once until a report has a gradient,
    SUSPECT until two unflagged reports end it, OVERFITTING and REGRESSED once per run.
    """

    def __init__(self, *, warm_up: int, steps_per_report: int) -> None:
        self._warm_up = warm_up
        self.reports = ReportHistory(steps_per_report)
        self._baseline: deque[float] = deque(maxlen=BASELINE)
        self._drift_window = DriftWindow()
        self._validations = ValidationHistory()
        self.suspicion: int | None = None  # the first flag of the open SUSPECT
        self._unflagged_since_suspicion = 0  # consecutive reports
        self._skips_raised = False
        self._muted: set[Alarm] = set()  # alarms that the current episode does not raise again
        self._unflagged = 0  # consecutive reports
        self._without_drift = 0  # consecutive reports without flag and drift
        self._no_gradient: deque[float] = deque(maxlen=NO_GRADIENT_REPORTS)  # losses of reports without a gradient
        self._no_gradient_from = 0  # iteration of the first of the present ones

    @property
    def stuck_from(self) -> int | None:
        """The last iteration of the first of many reports without a gradient, up to the present; None if it learns."""
        losses = list(self._no_gradient)
        if len(losses) < NO_GRADIENT_REPORTS:
            return None
        fall = median(losses[: len(losses) // 2]) - median(losses[len(losses) // 2 :])
        return self._no_gradient_from if fall <= median_and_scale(losses)[1] else None

    @property
    def in_doubt(self) -> bool:
        """Whether one of the last reports is flagged."""
        return bool(self.reports.flags_among_last(SPIKE_WINDOW))

    def within_tolerance(self, validation: ValidationLoss) -> bool:
        """Return whether a validation is finite and not beyond the best so far."""
        return math.isfinite(validation.loss) and not self._validations.is_beyond(validation)

    def report(self, report: LossReport) -> LossFinding | None:
        """Add one report, in the order of the iterations; return the most serious new finding."""
        comparison, drift = self._compare(report), None
        if not math.isfinite(report.loss):
            flagged = True
        elif comparison is None:
            first = self.reports.first_loss
            flagged = first is not None and report.loss > EARLY_RATIO * first + EARLY_RISE
            self._drift_window.add(report.loss, len(self.reports), scale=None)
        else:
            flagged = comparison.flagged
            drift = self._drift_window.add(report.loss, len(self.reports), scale=comparison.scale)
        self._remember(report, flagged=flagged, drifted=drift is not None)
        suspect, stuck = self._watch(report, comparison, flagged=flagged), self._stuck(report)
        if not math.isfinite(report.loss):
            return self._once(_not_finite(report, "loss"))
        spike = self._spike(report, comparison) if comparison else self._early_spike(report)
        drifting = _drift(report, drift, self.reports.iterations[drift.begins]) if drift else None
        return self._once(spike) or self._once(drifting) or self._once(stuck) or self._once(suspect)

    def validation(self, validation: ValidationLoss) -> LossFinding | None:
        """Add one validation, after the report that ends at its iteration.

        Two consecutive ones beyond the best are a SPIKE if the training loss rose much too, OVERFITTING if it fell or
        is memorized, and REGRESSED otherwise.
        """
        if not math.isfinite(validation.loss):
            return self._once(_not_finite(validation, "validation loss"))
        return self._once(
            self._validations.add(
                validation, self.reports, in_episode=Alarm.SPIKE in self._muted, in_doubt=self.in_doubt
            )
        )

    def _compare(self, report: LossReport) -> BaselineComparison | None:
        """Compare a report with the baseline; None while the main rule does not apply."""
        if len(self._baseline) < MIN_BASELINE or report.iteration <= self._warm_up or not math.isfinite(report.loss):
            return None
        return BaselineComparison.of(report.loss, self._baseline)

    def _remember(self, report: LossReport, *, flagged: bool, drifted: bool) -> None:
        self.reports.add(report, flagged=flagged)
        if not flagged:
            self._baseline.append(report.loss)
        self._unflagged = 0 if flagged else self._unflagged + 1
        self._without_drift = 0 if flagged or drifted else self._without_drift + 1
        if self._unflagged >= EPISODE_ENDS_AFTER:
            self._muted -= {Alarm.SPIKE, Alarm.NOT_FINITE, Alarm.SUSPECT}
        if self._without_drift >= EPISODE_ENDS_AFTER:  # a loss that stays high without a flag is the same drift
            self._muted.discard(Alarm.DRIFT)

    def _once(self, finding: LossFinding | None) -> LossFinding | None:
        """Return a finding unless the current episode has already raised its alarm."""
        if finding is None or finding.alarm in self._muted:
            return None
        if finding.alarm in (Alarm.SPIKE, Alarm.DRIFT, Alarm.NOT_FINITE, Alarm.NO_GRADIENT):
            self._muted |= {Alarm.SPIKE, Alarm.DRIFT, Alarm.SUSPECT}
            self._unflagged = self._without_drift = 0
        if finding.alarm in (Alarm.NOT_FINITE, Alarm.NO_GRADIENT):
            self._muted.add(finding.alarm)
        return finding

    def _watch(self, report: LossReport, comparison: BaselineComparison | None, *, flagged: bool) -> LossFinding | None:
        """End the open SUSPECT, or raise one for an enormous loss or many updates that were not applied."""
        self._unflagged_since_suspicion = 0 if flagged else self._unflagged_since_suspicion + 1
        if self._unflagged_since_suspicion >= SUSPECT_ENDS_AFTER:
            self.suspicion = None
        skips = self.reports.skipped_updates()
        self._skips_raised = self._skips_raised and skips is not None
        if self.suspicion is not None:
            return None
        if comparison is not None and comparison.suspect:
            text = comparison.text(report.iteration)
            suspect = _finding(Alarm.SUSPECT, report, report.iteration, text, **comparison.evidence())
        elif skips is not None and not self._skips_raised:
            suspect = _many_skipped(report, skips)
            self._skips_raised = True
        else:
            return None
        self.suspicion, self._unflagged_since_suspicion = suspect.first_flag, 0
        return suspect

    def _spike(self, report: LossReport, comparison: BaselineComparison) -> LossFinding | None:
        flags = self.reports.flags_among_last(SPIKE_WINDOW)
        if not comparison.flagged or len(flags) < SPIKE_FLAGS:
            return None
        text = f"{comparison.text(report.iteration)}; {len(flags)} of the last {SPIKE_WINDOW} reports flagged"
        return _finding(Alarm.SPIKE, report, flags[0], text, **comparison.evidence(), flags=len(flags))

    def _stuck(self, report: LossReport) -> LossFinding | None:
        """A model whose activations saturated has a gradient of exactly 0, and its loss no longer changes."""
        if report.grad_norm is None:
            return None  # no update has been made yet
        if not report.grad_norm <= NO_GRADIENT or report.loss <= NO_GRADIENT_LOSS:
            self._no_gradient.clear()
            self._muted.discard(Alarm.NO_GRADIENT)
            return None
        if not self._no_gradient:
            self._no_gradient_from = report.iteration
        self._no_gradient.append(report.loss)
        first = self.stuck_from
        if first is None:
            return None
        text = (
            f"every gradient of the last {NO_GRADIENT_REPORTS} reports up to iteration {report.iteration:,} is 0, and "
            f"the loss stays at {report.loss:.3f}: the model no longer learns"
        )
        numbers = {"loss": report.loss, "grad_norm": report.grad_norm, "reports": NO_GRADIENT_REPORTS}
        return _finding(Alarm.NO_GRADIENT, report, first, text, **numbers)

    def _early_spike(self, report: LossReport) -> LossFinding | None:
        flags = self.reports.flags_among_last(EARLY_REPORTS)
        first = self.reports.first_loss
        if first is None or len(flags) < EARLY_REPORTS:
            return None
        limit = EARLY_RATIO * first + EARLY_RISE
        text = (
            f"loss {report.loss:.3f} at iteration {report.iteration:,}: {EARLY_REPORTS} consecutive reports above "
            f"{limit:.3f}; the first loss was {first:.3f}"
        )
        return _finding(
            Alarm.SPIKE, report, flags[0], text, loss=report.loss, first=first, limit=limit, flags=len(flags)
        )


def fold(
    reports: Sequence[LossReport], validations: Sequence[ValidationLoss], *, warm_up: int, steps_per_report: int
) -> tuple[LossDetector, list[LossFinding]]:
    """Fold a whole run, each validation after the report that ends at its iteration; return all findings, oldest first.

    Args:
        reports: those that lead to the current weights, oldest first.
        warm_up: iterations whose loss is not compared with the baseline.
    """
    detector = LossDetector(warm_up=warm_up, steps_per_report=steps_per_report)
    findings: list[LossFinding | None] = []
    waiting = deque(validations)
    for report in reports:
        while waiting and waiting[0].iteration < report.iteration:
            findings.append(detector.validation(waiting.popleft()))
        findings.append(detector.report(report))
    findings += [detector.validation(validation) for validation in waiting]
    return detector, [finding for finding in findings if finding is not None]


def _finding(
    alarm: Alarm, measured: LossReport | ValidationLoss, first_flag: int, text: str, **evidence: float
) -> LossFinding:
    return LossFinding(alarm=alarm, iteration=measured.iteration, first_flag=first_flag, text=text, evidence=evidence)


def _drift(report: LossReport, drift: Drift, first_flag: int) -> LossFinding:
    text = (
        f"loss {report.loss:.3f} at iteration {report.iteration:,}: the median {drift.cur:.3f} of the last "
        f"{DRIFT_WINDOW} reports is {drift.cur - drift.lo:.3f} above the lowest median {drift.lo:.3f} "
        f"(tolerance {drift.margin:.3f}); the rise began at iteration {first_flag:,}"
    )
    numbers = {"loss": report.loss, "cur": drift.cur, "lo": drift.lo, "margin": drift.margin, "scale": drift.scale}
    return _finding(Alarm.DRIFT, report, first_flag, text, **numbers)


def _many_skipped(report: LossReport, skips: SkippedUpdates) -> LossFinding:
    text = (
        f"{skips.skipped} of the last {skips.iterations} updates up to iteration {report.iteration:,} were not "
        f"applied, because their loss or gradient was not finite; more than {SKIPPED_SHARE:.0%}"
    )
    numbers = {"skipped": skips.skipped, "iterations": skips.iterations}
    return _finding(Alarm.SUSPECT, report, skips.first, text, **numbers)


def _not_finite(measured: LossReport | ValidationLoss, what: str) -> LossFinding:
    text = f"{what} {measured.loss} at iteration {measured.iteration:,}"
    return _finding(Alarm.NOT_FINITE, measured, measured.iteration, text, loss=measured.loss)
