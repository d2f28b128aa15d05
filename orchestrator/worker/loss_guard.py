"""The loss guard of one job: folds the reported losses, and returns what the policies conclude from them.

It stores nothing: a new worker folds all reports that lead to the present weights again. It therefore reaches the same
conclusion at the same iteration, even if the trainer has continued meanwhile.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.loss.alarms import Alarm, LossFinding, LossReport, ValidationLoss
from jobs.loss.detector import LossDetector
from jobs.model.events import Event, Kind, WarningEvent, values_of
from jobs.model.job import Job, Validation
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.policies import early_stop
from jobs.policies.early_stop import Stop
from jobs.policies.quarantine import NonFiniteRows, Quarantine, quarantine
from jobs.policies.rollback import CALM_REPORTS, RollbackCandidate
from orchestrator.store.store import Store
from orchestrator.worker.finalize import Note
from workers.checkpoints import storage

NOT_APPLIED = "not_applied"  # code of the trainer's warning that it did not apply an update
ROLLBACK_ALARMS = (Alarm.SPIKE, Alarm.DRIFT, Alarm.NOT_FINITE, Alarm.NO_GRADIENT)
"""Alarms that trigger a rollback; the others are only reported."""

RELEVANT = (Kind.PROGRESS, Kind.VALIDATION, Kind.WARNING)  # events that may change the conclusion

Conclusion = LossFinding | Quarantine | Stop
"""Why an attempt ends: an alarm, rows to leave out, or an early stop."""


class LossGuard:
    """Folds the losses of one job into a conclusion."""

    def __init__(self, store: Store, job: Job, spec: JobSpec, run_plan: RunPlan, *, train_rows: int | None) -> None:
        self._store, self._job, self._spec, self._run_plan = store, job, spec, run_plan
        self._train_rows = train_rows
        self._detector = LossDetector(warm_up=spec.warmup_iterations, steps_per_report=spec.steps_per_report)
        self._reported = 0  # iteration of the last folded report
        self._read_to = -1  # iteration of the last validation that was read
        self._pending: list[Validation] = []  # read, but after a report that is not folded yet
        self._validations: list[Validation] = []  # folded; without row losses, which would use much memory
        rule = spec.lq.early_stop
        self._patience = early_stop.Patience(rule) if rule is not None else None
        self._started = False
        self._alarm: LossFinding | None = None  # the first that triggers a rollback
        self._early: Stop | None = None
        self._quarantine: Quarantine | None = None

    @property
    def suspicion(self) -> int | None:
        """The first flag of an open suspicion; None without one, or if the guard is off."""
        return self._detector.suspicion if self._spec.lq.spike.enabled else None

    @property
    def in_doubt(self) -> bool:
        """Whether the present weights may be bad, so that no older checkpoint may be deleted."""
        return self.suspicion is not None or self.conclusion is not None

    @property
    def conclusion(self) -> Conclusion | None:
        """Why the run should not continue as it is, the earliest reason; None if it may."""
        reasons: list[Conclusion | None] = [self._alarm, self._quarantine, self._early]
        return min((reason for reason in reasons if reason is not None), key=lambda r: r.iteration, default=None)

    def look(self, events: Sequence[Event] | None = None) -> list[LossFinding]:
        """Fold what the store has ingested since the last call, and return new findings.

        If none of the events since the last call is relevant, nothing is read. None: the events are unknown.
        """
        if self._started and events is not None and not any(event.kind in RELEVANT for event in events):
            return []
        warnings = values_of(events or (), WarningEvent)
        if not self._started or events is None or any(warning.code == NOT_APPLIED for warning in warnings):
            self._update_quarantine()
        self._started = True
        if self._alarm is not None:
            return []  # later losses belong to weights that the rollback discards
        new = self._store.metrics.validations(self._job.id, after=self._read_to)
        self._read_to = max([self._read_to, *(validation.iteration for validation in new)])
        self._pending += new
        findings: list[LossFinding] = []
        for point in self._store.metrics.points(self._job.id, after=self._reported):
            complete = point.iteration % self._spec.steps_per_report == 0 or point.iteration == self._spec.iters
            if not complete:
                continue  # an attempt ended in this report; the next attempt completes it
            findings += self._fold_validations(before=point.iteration)
            if self._alarm is not None:
                return findings
            findings += self._keep_alarm(self._detector.report(LossReport.of(point)))
            self._reported = point.iteration
            if self._alarm is not None:
                return findings
        return findings + self._fold_validations(before=None)

    def _fold_validations(self, *, before: int | None) -> list[LossFinding]:
        """Fold the validations before a report, or at the end of the last one.

        The trainer may write a validation before the report that ends at the same iteration; the order in which they
        are folded must not depend on when this is called.
        """
        every, findings = self._spec.steps_per_report, []
        while self._pending and self._alarm is None:
            first = self._pending[0].iteration
            if first - first % every > self._reported or (before is not None and first >= before):
                break
            validation = self._pending.pop(0)
            self._validations.append(dataclasses.replace(validation, row_losses=None))
            findings += self._keep_alarm(self._detector.validation(ValidationLoss.of(validation)))
            if self._patience is not None and self._early is None:
                stop = self._patience.add(validation)
                ends = self._run_plan.ends_at is not None or (stop is not None and stop.iteration >= self._spec.iters)
                self._early = None if ends else stop
        return findings

    def _keep_alarm(self, finding: LossFinding | None) -> list[LossFinding]:
        if finding is None:
            return []
        if finding.alarm in ROLLBACK_ALARMS and self._spec.lq.spike.enabled:
            self._alarm = finding
        return [finding]

    def _update_quarantine(self) -> None:
        if not self._spec.lq.spike.enabled:
            return
        incidents = self._store.incidents.of(self._job.id)
        culprits = [_culprits(incident.evidence) for incident in incidents if incident.code == NOT_APPLIED]
        already = {row for stage in self._run_plan.stages for row in stage.quarantined}
        rows = self._train_rows if self._train_rows is not None else 0
        self._quarantine = quarantine(culprits, already=already, train_rows=rows)

    def candidates(self) -> list[RollbackCandidate]:
        """Return the valid checkpoints on the run plan, each with whether it is healthy."""
        folder = self._job.dir.checkpoints
        by_iteration = {validation.iteration: validation for validation in self._validations}
        best = early_stop.best(self._validations)
        candidates = []
        for checkpoint in storage.valid(folder, self._run_plan):
            state, iteration = checkpoint.state(), checkpoint.iteration
            validation = by_iteration.get(iteration)
            calm = self._detector.reports.unflagged_after(iteration) >= CALM_REPORTS
            good = validation is not None and self._detector.within_tolerance(ValidationLoss.of(validation))
            candidates.append(
                RollbackCandidate(
                    iteration=iteration,
                    updates=state.updates,
                    best=best is not None and iteration == best.iteration,
                    healthy=state.finite and (calm or good),
                )
            )
        return candidates


def override_ending(ending: Ending, conclusion: Conclusion | None) -> Ending:
    """Return the ending of an attempt: the guard's conclusion overrides the exit, because it caused the exit."""
    if conclusion is None or ending.outcome is Outcome.REFUSED:
        return ending
    return ending_of(conclusion)


def ending_of(conclusion: Conclusion) -> Ending:
    if isinstance(conclusion, LossFinding):
        return Ending(outcome=Outcome.CRASHED, reason=Reason(conclusion.alarm), detail=conclusion.text)
    if isinstance(conclusion, Stop):
        return Ending(outcome=Outcome.STOPPED, reason=Reason.EARLY_STOPPED, detail=conclusion.text)
    rows = f"{', '.join(conclusion.lines)}: made the loss non-finite twice"
    return Ending(outcome=Outcome.STOPPED, reason=Reason.NOT_FINITE, detail=rows)


def note(finding: LossFinding, *, acts: bool) -> Note:
    """Return the incident for a finding that does not trigger a rollback; `acts`: whether the guard is enabled."""
    actions = {
        Alarm.SUSPECT: "requested a validation; nothing is deleted until the suspicion is cleared",
        Alarm.OVERFITTING: "none; more training does not help this validation set",
        Alarm.REGRESSED: "none; the best checkpoint is kept, and a lower learning rate may help",
    }
    action = actions.get(finding.alarm, "") if acts else "none; lq.spike.enabled is false"
    place = {"iteration": finding.iteration, "first_flag": finding.first_flag, "action": action}
    return Note(finding.alarm, finding.text, {**place, **finding.evidence})


def _culprits(evidence: Mapping[str, Any]) -> NonFiniteRows:
    rows = [row for row in evidence.get("rows", ()) if isinstance(row, dict)]
    return NonFiniteRows(
        iteration=int(evidence["iteration"]),
        rows=tuple(int(row["row"]) for row in rows),
        lines=tuple(str(row["line"]) for row in rows),
    )
