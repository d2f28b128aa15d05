"""The Decision after a conclusion of the loss guard (docs/explanation/policies.md, sections 1, 2 and 7).

The conclusion is a rollback, rows to leave out, or an early end. rollback.py chooses the target of a rollback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.loss.alarms import LossFinding
from jobs.model.outcomes import Ending, Reason
from jobs.model.run_plan import RunPlan
from jobs.model.states import Status
from jobs.model.text import counted
from jobs.policies import quarantine, rollback
from jobs.policies.decision import Decision, History
from jobs.policies.early_stop import Stop
from jobs.policies.quarantine import Quarantine
from jobs.policies.retry import Backoff

if TYPE_CHECKING:
    from jobs.model.spec import JobSpec

GUARD_REASONS = frozenset({Reason.SPIKE, Reason.DRIFT, Reason.NOT_FINITE, Reason.NO_GRADIENT})
"""Reasons that cause a rollback."""


def roll_back_or_fail(
    ending: Ending,
    spec: JobSpec,
    history: History,
    finding: LossFinding,
    answer: Backoff,
    evidence: dict[str, object],
    now: float,
) -> Decision:
    """Roll the run back after a loss alarm; after too many rollbacks, fail and publish the best adapter."""
    before = sum(crash.reason in GUARD_REASONS for crash in history.crashes[:-1])
    evidence |= {"iteration": finding.iteration, "first_flag": finding.first_flag} | dict(finding.evidence)
    if before >= spec.lq.spike.max_rollbacks or not answer.may_retry:
        return _fail(ending, spec, history, finding, answer, evidence, before=before)
    back = rollback.roll_back(finding, spec, history, before=before)
    lost = finding.iteration - back.target
    more = {"back_to": back.target, "rollback": back.stage.rollback, "iterations_given_up": lost, "delay_s": 0.0}
    return Decision.after(
        ending,
        Status.WAITING,
        not_before=now,
        stage=back.stage,
        back_to=back.target,
        answer=back.text,
        evidence=evidence | more,
    )


def _fail(
    ending: Ending,
    spec: JobSpec,
    history: History,
    finding: LossFinding,
    answer: Backoff,
    evidence: dict[str, object],
    *,
    before: int,
) -> Decision:
    published = rollback.healthy_target(finding, spec, history.candidates)
    kept = (
        f"lq publishes the best adapter before the alarm, of iteration {published.iteration:,}"
        if published
        else "no adapter from before the alarm was kept"
    )
    if before >= spec.lq.spike.max_rollbacks:
        reason = Reason.DIVERGED
        rule = f"{counted(before, 'earlier rollback')} (lq.spike.max_rollbacks: {spec.lq.spike.max_rollbacks})"
    else:
        reason = Reason.CRASH_LOOP
        rule = f"{counted(answer.consecutive_crashes, 'consecutive restart')} without new progress"
    return Decision.after(
        ending,
        Status.FAILED,
        reason=reason,
        detail=f"{ending.detail}; {rule}; {kept}",
        publish_until=published.iteration if published else 0,
        answer=f"gave up: {rule}; {kept}",
        evidence=evidence | {"rollbacks": before, "published": published.iteration if published else None},
    )


def leave_rows_out(ending: Ending, spec: JobSpec, history: History, quarantined: Quarantine, now: float) -> Decision:
    """Leave out rows that made the loss non-finite twice, from the last rollback point before the second time."""
    evidence = {"rows": list(quarantined.lines), "iteration": quarantined.iteration}
    if quarantined.too_many:
        detail = f"{ending.detail}: more than {quarantine.MAX_SHARE:.0%} of the training rows; correct or remove them"
        return Decision.after(ending, Status.FAILED, reason=Reason.DATA_INVALID, detail=detail, evidence=evidence)
    points = [
        candidate
        for candidate in history.candidates
        if candidate.iteration < quarantined.iteration and rollback.is_point(candidate.iteration, spec)
    ]
    point = max(points, key=lambda candidate: candidate.iteration, default=None)
    target, updates = (point.iteration, point.updates) if point is not None else (0, 0)
    stage = quarantine.stage_without(
        quarantined,
        history.stages[-1],
        stages=history.stages,
        first_example=RunPlan(stages=tuple(history.stages)).example_of(target),
        updates=updates,
    )
    return Decision.after(
        ending,
        Status.WAITING,
        not_before=now,
        stage=stage,
        back_to=target,
        answer=f"the rows are left out from iteration {target:,}",
        evidence=evidence | {"back_to": target},
    )


def end_early(ending: Ending, spec: JobSpec, history: History, stop: Stop, now: float) -> Decision:
    """End the run at the validation that decided, regardless of how far the trainer got in the meantime.

    One more attempt starts at this end: it evaluates the test set and writes the last event.
    """
    first = RunPlan(stages=tuple(history.stages)).example_of(stop.iteration)
    return Decision.after(
        ending,
        Status.WAITING,
        not_before=now,
        stage=history.stages[-1].continued(first, because=f"early stop: {stop.text}", ends=True),
        back_to=stop.iteration,
        answer=f"the run ends at iteration {stop.iteration:,}",
        evidence={"iteration": stop.iteration, "best": stop.best, "iterations_saved": spec.iters - stop.iteration},
    )
