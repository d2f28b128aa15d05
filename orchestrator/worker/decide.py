"""From an ended attempt to a Decision: gathers what the rules look at, asks them, and remembers what it showed."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from typing import Any

from jobs.loss.alarms import LossFinding
from jobs.model.configuration import fit_key
from jobs.model.job import Attempt, Fit, Incident, Job, crash_evidence
from jobs.model.job_dir import JobDir
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.policies import after_attempt
from jobs.policies.after_loss_alarm import GUARD_REASONS
from jobs.policies.attempt_health import AttemptHealth
from jobs.policies.decision import Decision, History, stop_request_from
from jobs.policies.exits import NEAR_THE_LIMIT
from jobs.policies.quarantine import Quarantine
from jobs.policies.rollback import RollbackCandidate
from jobs.scheduling.obstacles import Obstacle
from orchestrator.core.context import WorkerContext
from orchestrator.submission.provenance import train_rows
from orchestrator.worker import loss_guard as guard
from orchestrator.worker.loss_guard import LossGuard
from workers.checkpoints import storage
from workers.system import processes

DAY_S = 24 * 3600.0
SAME_CAUSE_S = 600.0

_OF_THE_JOB = frozenset({Reason.KILLED, Reason.LOST, Reason.HOST_REBOOTED})
"""Deaths that say nothing about what the next job will meet: somebody sent a signal, or the machine went."""


def proven(ending: Ending, ended: Mapping[str, Any] | None, folder: JobDir, run_plan: RunPlan) -> Ending:
    """Return an ending as it is; a run that says it is done, but whose last checkpoint is not what was written, died.

    Args:
        ending: as the evidence has it.
        ended: the trainer's last words.
        folder: the job's.
        run_plan: the stages.
    """
    if ending.outcome is not Outcome.DONE:
        return ending
    last, bad = storage.newest_valid(folder.checkpoints, run_plan)
    if last is not None and last.iteration >= int((ended or {}).get("iteration") or 0):
        return ending
    what = bad[0] if bad else f"{folder.checkpoints} lacks its last checkpoint"
    return Ending(outcome=Outcome.CRASHED, reason=Reason.CRASHED, detail=f"{ending.detail}, but {what}")


def decide(
    context: WorkerContext,
    job: Job,
    spec: JobSpec,
    attempt: Attempt,
    health: AttemptHealth,
    loss_guard: LossGuard,
    *,
    obstacle: Obstacle | None = None,
) -> Decision:
    """Say what becomes of a job whose last attempt has ended.

    Args:
        context: store and clocks.
        job: the job.
        spec: what was asked for.
        attempt: the attempt, ended.
        health: what its events said.
        loss_guard: what its losses said.
        obstacle: why lq had it stop for now; None where it did not.
    """
    ending = Ending(
        outcome=Outcome(attempt.outcome or Outcome.CRASHED),
        reason=Reason(attempt.reason or Reason.LOST),
        detail=attempt.detail or "",
    )
    now = context.clock()
    return after_attempt.decide(
        ending,
        spec=spec,
        history=dataclasses.replace(_history(context, job, spec, attempt, health, loss_guard, now), obstacle=obstacle),
        now=now,
        jitter=random.random(),  # noqa: S311 spreads restarts, guards nothing
    )


def before_start(context: WorkerContext, job: Job, spec: JobSpec, attempt: Attempt, loss_guard: LossGuard) -> Decision:
    """Say what the loss guard's conclusion asks for before a new attempt has begun.

    Args:
        context: store and clocks.
        job: the job.
        spec: what was asked for.
        attempt: the last one.
        loss_guard: has concluded.
    """
    assert loss_guard.conclusion is not None
    found = guard.concluded(loss_guard.conclusion)
    now, health = context.clock(), AttemptHealth(attempt.number, spec)
    history = _history(context, job, spec, attempt, health, loss_guard, now)
    return after_attempt.decide(found, spec=spec, history=history, now=now, jitter=0.0)


def _history(
    context: WorkerContext,
    job: Job,
    spec: JobSpec,
    attempt: Attempt,
    health: AttemptHealth,
    loss_guard: LossGuard,
    now: float,
) -> History:
    store = context.app.store
    attempts = store.attempts.of(job.id)
    run_plan = store.run_plans.get(job.id, spec)
    stage = attempt.stage if attempt.stage is not None else len(run_plan.stages) - 1
    before = [one for one in attempts[:-1] if one.stage == stage]
    return History(
        stop_request=stop_request_from(store.jobs.get(job.id).stop_request),
        crashes=store.attempts.crashes(job.id),
        reboots=sum(one.reason == Reason.HOST_REBOOTED and now - (one.ended_at or now) < DAY_S for one in attempts),
        stage=run_plan.stages[stage],
        next_example=_next_example(job, run_plan) if attempt.outcome == Outcome.CRASHED else 0,
        survived=health.survived,
        repeated_stage=any(one.reason == Reason.OUT_OF_MEMORY for one in before),
        at_its_own_limit=(health.memory_share or 0.0) >= NEAR_THE_LIMIT,
        peak_bytes=health.peak_bytes,
        free_bytes=processes.free_bytes(),
        lengths=health.lengths,
        conclusion=loss_guard.conclusion,
        stages=run_plan.stages,
        candidates=_candidates(loss_guard),
        batches_per_epoch=health.batches_per_epoch or (train_rows(job) or 0) // spec.batch_size,
    )


def _candidates(loss_guard: LossGuard) -> list[RollbackCandidate]:
    """Return what the run could go back to. Reads the checkpoints whole, so only a conclusion asks."""
    if not isinstance(loss_guard.conclusion, LossFinding | Quarantine):
        return []
    return loss_guard.candidates()


def _next_example(job: Job, run_plan: RunPlan) -> int:
    """Return the examples seen where the next attempt will begin. Reads the whole checkpoint, so only a death asks."""
    checkpoint, _ = storage.newest_valid(job.dir.checkpoints, run_plan)
    return run_plan.example_of(checkpoint.iteration) if checkpoint is not None else 0


def incident(job: Job, attempt: Attempt, decision: Decision, now: float) -> Incident | None:
    """Return what the report must mention about a decision; None where all went as asked."""
    if decision.back_to is not None or decision.publish_until is not None:
        return of_the_guard(job, attempt, decision, now)
    if decision.status is not Status.WAITING and decision.status is not Status.HELD:
        return None
    if attempt.outcome == Outcome.STOPPED and "why" in decision.evidence:
        return _stopped_for_now(job, attempt, decision, now)
    if attempt.outcome != Outcome.CRASHED:
        return None
    return Incident(
        job_id=job.id,
        attempt=attempt.number,
        time=now,
        code=str(decision.reason),
        text=decision.detail,
        evidence={**decision.evidence, **crash_evidence(attempt), "action": decision.answer},
    )


def _stopped_for_now(job: Job, attempt: Attempt, decision: Decision, now: float) -> Incident:
    """Return the incident for a job that may not train for a while."""
    return Incident(
        job_id=job.id,
        attempt=attempt.number,
        time=now,
        code=str(decision.reason),
        text=decision.detail,
        evidence={**decision.evidence, "iteration": attempt.last_iteration or attempt.first_iteration or 0},
    )


def of_the_guard(job: Job, attempt: Attempt, decision: Decision, now: float) -> Incident:
    """Return the incident for what the loss guard concluded: what it saw, and what it did."""
    quarantined = attempt.outcome == Outcome.STOPPED and decision.reason is Reason.NOT_FINITE
    return Incident(
        job_id=job.id,
        attempt=attempt.number,
        time=now,
        code="quarantined" if quarantined else str(decision.reason),
        text=decision.detail,
        evidence={**decision.evidence, "action": decision.answer},
    )


def is_handled(decision: Decision) -> bool:
    """Say whether the loss guard has answered losses gone wrong: by going back. Ending early is neither."""
    return decision.back_to is not None and decision.reason in GUARD_REASONS


def has_its_own_answer(decision: Decision) -> bool:
    """Say whether the job itself goes on with a remedy: on a smaller rung, or as soon as there is space.

    Another job that met the same is no reason to pause the queue then, and to keep this one from its remedy.
    """
    remedied = (Reason.OUT_OF_MEMORY, Reason.DISK_FULL, *GUARD_REASONS)
    return decision.status is Status.WAITING and decision.reason in remedied


def same_cause(context: WorkerContext, job: Job, attempt: Attempt, health: AttemptHealth) -> str | None:
    """Say why the queue should be paused: two jobs died of the same cause within ten minutes; None where none did."""
    reason = Reason(attempt.reason or Reason.LOST)
    if attempt.outcome != Outcome.CRASHED or reason in _OF_THE_JOB or health.trained:
        return None
    others = context.app.store.attempts.other_crashes(job.id, reason=reason, since=context.clock() - SAME_CAUSE_S)
    if not others:
        return None
    both = f"jobs {others[-1]} and {job.id} both died of {reason} within ten minutes, before they trained"
    return f"{both}: {attempt.detail}"


def remember_fit(context: WorkerContext, job: Job, spec: JobSpec, attempt: Attempt, health: AttemptHealth) -> None:
    """Keep whether the configuration of an attempt fitted and how fast it was, for the next submit and for plans."""
    stages = context.app.store.run_plans.get(job.id, spec).stages
    stage = stages[attempt.stage if attempt.stage is not None else -1]
    failed = attempt.outcome == Outcome.CRASHED and attempt.reason == Reason.OUT_OF_MEMORY
    if failed or health.trained:
        fit = Fit(
            fits=not failed,
            peak_bytes=health.peak_bytes,
            job_id=job.id,
            it_s=health.median_it_s,
            start_s=health.start_s,
            validation_s=health.validation_s,
        )
        context.app.store.fits.record(fit_key(spec, stage), fit, context.clock())
