"""The loss guard's eye on one job: folds what its trainer has reported, and says what the rules conclude.

Nothing is saved: whoever looks after a job folds the reports that lead to its present weights anew. So the successor
of a killed worker comes to the same conclusion, at the same iteration, whatever the trainer has done meanwhile.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.loss.alarms import Alarm, LossFinding, LossReport, ValidationLoss
from jobs.loss.detector import LossDetector
from jobs.model.events import Event, Kind
from jobs.model.job import Incident, Job, Validation
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.policies import early_stop
from jobs.policies.early_stop import Stop
from jobs.policies.quarantine import NonFiniteRows, Quarantine, quarantine
from jobs.policies.rollback import CALM_REPORTS, RollbackCandidate
from orchestrator.store.store import Store
from workers.checkpoints import storage

NOT_APPLIED = "not_applied"
"""The code under which the trainer tells of an iteration whose update was not applied."""

ANSWERED = (Alarm.SPIKE, Alarm.DRIFT, Alarm.NOT_FINITE)
"""Alarms that are answered by going back; the others are told."""

TELLING = (Kind.PROGRESS, Kind.VALIDATION, Kind.WARNING)
"""Events that may change what the guard concludes."""

Conclusion = LossFinding | Quarantine | Stop
"""Why an attempt ends: the loss has gone wrong, rows are to be left out, nothing gets better any more."""


class LossGuard:
    """What the reports of one job say about its loss, and what follows."""

    def __init__(self, store: Store, job: Job, spec: JobSpec, run_plan: RunPlan, *, train_rows: int | None) -> None:
        """Begin before the first report.

        Args:
            store: what was reported.
            job: the job.
            spec: its rules.
            run_plan: the stages; the rows they leave out are accused no more.
            train_rows: rows of the training set; None where that is not known.
        """
        self._store, self._job, self._spec, self._run_plan = store, job, spec, run_plan
        self._train_rows = train_rows
        self._detector = LossDetector(warm_up=_warm_up(spec), steps_per_report=spec.steps_per_report)
        self._reported = 0  # iteration of the last report folded in
        self._read_to = -1  # iteration of the last validation read
        self._waiting: list[Validation] = []  # read; the report they come after was not folded in yet
        self._validations: list[Validation] = []  # folded in; without the losses of their rows, which would pile up
        rule = spec.lq.early_stop
        self._patience = early_stop.Patience(rule) if rule is not None else None
        self._looked = False
        self._alarm: LossFinding | None = None  # the first that is answered
        self._early: Stop | None = None
        self._quarantine: Quarantine | None = None

    @property
    def suspicion(self) -> int | None:
        """The first flag of an open suspicion; None where none is open, or the guard is off and never acts."""
        return self._detector.suspicion if self._spec.lq.spike.enabled else None

    @property
    def in_doubt(self) -> bool:
        """Whether the present weights may have gone wrong, so that nothing older may be deleted."""
        return self.suspicion is not None or self.conclusion is not None

    @property
    def conclusion(self) -> Conclusion | None:
        """Why the run should not go on as it is: of several reasons the earliest. None where it may."""
        found: list[Conclusion] = [one for one in (self._alarm, self._quarantine, self._early) if one is not None]
        return min(found, key=lambda one: one.iteration, default=None)

    def look(self, events: Sequence[Event] | None = None) -> list[LossFinding]:
        """Fold in what the store has taken in since the last look; return what is new.

        Args:
            events: those that just came, so that nothing is read where none of them tells; None where not known.
        """
        if self._looked and events is not None and not any(event.kind in TELLING for event in events):
            return []
        if not self._looked or events is None or any(event.data.get("code") == NOT_APPLIED for event in events):
            self._accuse()
        self._looked = True
        if self._alarm is not None:
            return []  # what comes after it is about weights that are given up
        self._read_validations()
        found: list[LossFinding] = []
        for point in self._store.metrics.points(self._job.id, after=self._reported):
            if self._alarm is not None:
                return found
            whole = point.iteration % self._spec.steps_per_report == 0 or point.iteration == self._spec.iters
            if not whole:
                continue  # an attempt ended inside it; the next one tells it whole
            found += self._validated(before=point.iteration)
            if self._alarm is not None:
                return found
            report = LossReport(iteration=point.iteration, loss=point.train_loss, skipped=point.skipped or 0)
            found += self._noted(self._detector.report(report))
            self._reported = point.iteration
        return found + self._validated(before=None)

    def _read_validations(self) -> None:
        fresh = self._store.metrics.validations(self._job.id, after=self._read_to)
        self._read_to = max([self._read_to, *(one.iteration for one in fresh)])
        self._waiting += fresh

    def _validated(self, *, before: int | None) -> list[LossFinding]:
        """Fold in the validations that came before a report, or at the end of the last one.

        The trainer may tell a validation before the report that ends at the same iteration; the order must not depend
        on when somebody looks.
        """
        every, found = self._spec.steps_per_report, []
        while self._waiting and self._alarm is None:
            first = self._waiting[0].iteration
            if first - first % every > self._reported or (before is not None and first >= before):
                break
            one = self._waiting.pop(0)
            self._validations.append(dataclasses.replace(one, row_losses=None))
            validated = ValidationLoss(iteration=one.iteration, loss=one.loss, standard_error=one.standard_error)
            found += self._noted(self._detector.validation(validated))
            if self._early is None:
                self._early = self._stop(one)
        return found

    def _stop(self, one: Validation) -> Stop | None:
        """Ask whether the run should have ended; not where that was decided before, nor where it ends anyway."""
        found = self._patience.add(one) if self._patience is not None else None
        over = found is None or self._run_plan.ends_at is not None or found.iteration >= self._spec.iters
        return None if over else found

    def _noted(self, finding: LossFinding | None) -> list[LossFinding]:
        """Keep the first alarm that is answered."""
        if finding is None:
            return []
        if finding.alarm in ANSWERED and self._spec.lq.spike.enabled:
            self._alarm = finding
        return [finding]

    def _accuse(self) -> None:
        if not self._spec.lq.spike.enabled:
            return
        incidents = self._store.incidents.of(self._job.id)
        seen = [_culprits(one.evidence) for one in incidents if one.code == NOT_APPLIED]
        already = {row for stage in self._run_plan.stages for row in stage.quarantined}
        rows = self._train_rows if self._train_rows is not None else 0
        self._quarantine = quarantine(seen, already=already, train_rows=rows)

    def candidates(self) -> list[RollbackCandidate]:
        """Return the checkpoints that verify and lie on the run plan, each with what makes it healthy."""
        folder = self._job.dir.checkpoints
        losses = {one.iteration: one for one in self._validations}
        best = early_stop.best(self._validations)
        found = []
        for checkpoint in storage.valid(folder, self._run_plan):
            state, iteration = checkpoint.state(), checkpoint.iteration
            one = losses.get(iteration)
            calm = self._detector.calm_after(iteration) >= CALM_REPORTS
            good = one is not None and self._detector.tolerance_met(
                ValidationLoss(iteration=iteration, loss=one.loss, standard_error=one.standard_error)
            )
            found.append(
                RollbackCandidate(
                    iteration=iteration,
                    updates=state.updates,
                    best=best is not None and iteration == best.iteration,
                    healthy=state.finite and (calm or good),
                )
            )
        return found


def ending(found: Ending, conclusion: Conclusion | None) -> Ending:
    """Return how an attempt ended, as the loss guard has it: why it was stopped counts more than how it went.

    Args:
        found: as the evidence of the process has it.
        conclusion: of the guard.
    """
    if conclusion is None or found.outcome is Outcome.REFUSED:
        return found
    return concluded(conclusion)


def concluded(conclusion: Conclusion) -> Ending:
    """Return how an attempt ends that is stopped for what the loss guard concluded."""
    if isinstance(conclusion, LossFinding):
        return Ending(outcome=Outcome.CRASHED, reason=Reason(conclusion.alarm), detail=conclusion.text)
    if isinstance(conclusion, Stop):
        return Ending(outcome=Outcome.STOPPED, reason=Reason.EARLY_STOPPED, detail=conclusion.text)
    rows = f"{', '.join(conclusion.lines)}: made the loss non-finite twice"
    return Ending(outcome=Outcome.STOPPED, reason=Reason.NOT_FINITE, detail=rows)


def incident(job: Job, attempt: int, finding: LossFinding, *, acts: bool, now: float) -> Incident:
    """Return what the report must mention about a finding that is told and not answered.

    Args:
        job: the job.
        attempt: number of the attempt.
        finding: what was seen.
        acts: whether the guard is on.
        now: unix seconds.
    """
    actions = {
        Alarm.SUSPECT: "requested a validation; nothing is deleted until the suspicion is cleared",
        Alarm.OVERFITTING: "none; more training does not help this validation set",
    }
    action = actions.get(finding.alarm, "") if acts else "none; lq.spike.enabled is false"
    place = {"iteration": finding.iteration, "first_flag": finding.first_flag, "action": action}
    return Incident(
        job_id=job.id,
        attempt=attempt,
        time=now,
        code=finding.alarm.value,
        text=finding.text,
        evidence={**place, **finding.evidence},
    )


def _warm_up(spec: JobSpec) -> int:
    """Return the iterations of the schedule's own warm-up."""
    return spec.lr_schedule.warmup * spec.grad_accumulation_steps if spec.lr_schedule is not None else 0


def _culprits(evidence: Mapping[str, Any]) -> NonFiniteRows:
    rows = [one for one in evidence.get("rows", ()) if isinstance(one, dict)]
    return NonFiniteRows(
        iteration=int(evidence["iteration"]),
        rows=tuple(int(one["row"]) for one in rows),
        lines=tuple(str(one["line"]) for one in rows),
    )
