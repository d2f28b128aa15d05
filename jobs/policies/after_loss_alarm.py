"""What is done after the loss guard has concluded something (policies.md 1, 2, 7): go back, leave rows out, end early.

Each takes the history and returns the Decision; where to go back to is chosen in rollback.py. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.loss.alarms import LossFinding
from jobs.model.outcomes import Ending, Reason
from jobs.model.run_plan import RunPlan
from jobs.model.states import Status
from jobs.policies import quarantine, rollback
from jobs.policies.decision import Decision, History
from jobs.policies.early_stop import Stop
from jobs.policies.quarantine import Quarantine
from jobs.policies.retry import Backoff

if TYPE_CHECKING:
    from jobs.model.spec import JobSpec

GUARD_REASONS = frozenset({Reason.SPIKE, Reason.DRIFT, Reason.NOT_FINITE})
"""Reasons of deaths that are answered by going back."""


def gone_back(
    ending: Ending,
    spec: JobSpec,
    history: History,
    finding: LossFinding,
    answer: Backoff,
    evidence: dict[str, object],
    now: float,
) -> Decision:
    """Answer a spike: go back, or give up and show the best there is."""
    before = sum(crash.reason in GUARD_REASONS for crash in history.crashes[:-1])
    seen = evidence | {"iteration": finding.iteration, "first_flag": finding.first_flag} | dict(finding.evidence)
    if before >= spec.lq.spike.max_rollbacks or not answer.may_retry:
        return _diverged(ending, spec, history, finding, answer, seen, before=before)
    back = rollback.roll_back(
        finding,
        spec=spec,
        stages=history.stages,
        candidates=history.candidates,
        batches_per_epoch=history.batches_per_epoch,
        before=before,
    )
    lost = finding.iteration - back.target
    more = {"back_to": back.target, "rollback": back.stage.rollback, "iterations_given_up": lost, "delay_s": 0.0}
    return Decision(
        status=Status.WAITING,
        reason=ending.reason,
        detail=ending.detail,
        not_before=now,
        stage=back.stage,
        back_to=back.target,
        answer=back.text,
        evidence=seen | more,
    )


def _diverged(
    ending: Ending,
    spec: JobSpec,
    history: History,
    finding: LossFinding,
    answer: Backoff,
    evidence: dict[str, object],
    *,
    before: int,
) -> Decision:
    shown = rollback.healthy_target(finding, spec, history.candidates)
    kept = (
        f"the best before it, of iteration {shown.iteration:,}, is published" if shown else "nothing before it is kept"
    )
    if before >= spec.lq.spike.max_rollbacks:
        reason = Reason.DIVERGED
        rule = f"went back {before} times before (lq.spike.max_rollbacks: {spec.lq.spike.max_rollbacks})"
    else:
        reason = Reason.CRASH_LOOP
        rule = f"{answer.consecutive_crashes} restarts in a row without new progress"
    return Decision(
        status=Status.FAILED,
        reason=reason,
        detail=f"{ending.detail}; {rule}; {kept}",
        publish_until=shown.iteration if shown else 0,
        answer=f"gave up: {rule}; {kept}",
        evidence=evidence | {"rollbacks": before, "published": shown.iteration if shown else None},
    )


def without_rows(ending: Ending, spec: JobSpec, history: History, found: Quarantine, now: float) -> Decision:
    """Go on without rows that made the loss non-finite twice, from the last rollback point before the second time."""
    evidence = {"rows": list(found.lines), "iteration": found.iteration}
    if found.too_many:
        detail = f"{ending.detail}: more than {quarantine.MOST_SHARE:.0%} of the training rows; mend or remove them"
        return Decision(status=Status.FAILED, reason=Reason.DATA_INVALID, detail=detail, evidence=evidence)
    points = [
        one for one in history.candidates if one.iteration < found.iteration and rollback.is_point(one.iteration, spec)
    ]
    back = max(points, key=lambda one: one.iteration, default=None)
    target, updates = (back.iteration, back.updates) if back is not None else (0, 0)
    first = RunPlan(stages=tuple(history.stages)).example_of(target)
    stage = quarantine.stage_without(
        found, history.stages[-1], stages=history.stages, first_example=first, updates=updates
    )
    return Decision(
        status=Status.WAITING,
        reason=ending.reason,
        detail=ending.detail,
        not_before=now,
        stage=stage,
        back_to=target,
        answer=f"left out from iteration {target:,} on",
        evidence=evidence | {"back_to": target},
    )


def ended_early(ending: Ending, spec: JobSpec, history: History, found: Stop, now: float) -> Decision:
    """Let the run end at the validation that decided it, however far the trainer came before it heard of it.

    One more attempt finds itself at the end there, and does what is done at an end: the test set, the last word.
    """
    first = RunPlan(stages=tuple(history.stages)).example_of(found.iteration)
    return Decision(
        status=Status.WAITING,
        reason=ending.reason,
        detail=ending.detail,
        not_before=now,
        stage=history.stages[-1].continued(first, because=f"early stop: {found.text}", ends=True),
        back_to=found.iteration,
        answer=f"the run ends at iteration {found.iteration:,}",
        evidence={"iteration": found.iteration, "best": found.best, "iterations_saved": spec.iters - found.iteration},
    )
