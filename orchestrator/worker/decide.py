"""Decides what happens to a job after an attempt: collects what the policies need, and calls them."""

from __future__ import annotations

import dataclasses
import random
from itertools import takewhile

from jobs.loss.alarms import LossFinding
from jobs.model.configuration import fit_key
from jobs.model.events import EndedEvent
from jobs.model.job import Attempt, Fit, Job, crash_evidence
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
from jobs.policies.machine import machine_cause
from jobs.policies.quarantine import Quarantine
from jobs.scheduling.obstacles import Obstacle
from orchestrator.core.context import WorkerContext
from orchestrator.submission.provenance import train_rows
from orchestrator.worker.finalize import Note
from orchestrator.worker.loss_guard import LossGuard
from workers.checkpoints import storage
from workers.system import processes

DAY_S = 24 * 3600.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttemptResult:
    """An attempt, and what was observed while it ran."""

    job: Job
    spec: JobSpec
    attempt: Attempt
    health: AttemptHealth
    losses: LossGuard
    obstacle: Obstacle | None = None  # why lq stopped it for now; None if it did not


def require_last_checkpoint(ending: Ending, ended: EndedEvent | None, folder: JobDir, run_plan: RunPlan) -> Ending:
    """Return an ending unchanged, or as a crash if the run is done but its last checkpoint is not valid."""
    if ending.outcome is not Outcome.DONE:
        return ending
    last, errors = storage.newest_valid(folder.checkpoints, run_plan)
    iteration = ended.iteration if ended is not None else None
    if last is not None and last.iteration >= (iteration or 0):
        return ending
    error = errors[0] if errors else f"{folder.checkpoints} lacks its last checkpoint"
    return Ending(outcome=Outcome.CRASHED, reason=Reason.CRASHED, detail=f"{ending.detail}, but {error}")


def decide(context: WorkerContext, result: AttemptResult, ending: Ending | None = None) -> Decision:
    """Return what happens to a job after an attempt; by default after the ending that the store has."""
    attempt, now = result.attempt, context.clock()
    if ending is None:
        outcome, reason = Outcome(attempt.outcome or Outcome.CRASHED), Reason(attempt.reason or Reason.LOST)
        ending = Ending(outcome=outcome, reason=reason, detail=attempt.detail or "")
    jitter = random.random()  # noqa: S311 spreads restarts, no secret
    return after_attempt.decide(
        ending, spec=result.spec, history=_history(context, result, now), now=now, jitter=jitter
    )


def _history(context: WorkerContext, result: AttemptResult, now: float) -> History:
    store, job, spec, attempt, health = context.app.store, result.job, result.spec, result.attempt, result.health
    attempts = store.attempts.of(job.id)
    run_plan = store.run_plans.get(job.id, spec)
    stage = attempt.stage if attempt.stage is not None else len(run_plan.stages) - 1
    earlier = [other for other in attempts[:-1] if other.stage == stage]
    conclusion, next_example = result.losses.conclusion, 0
    if attempt.outcome == Outcome.CRASHED:  # only then, because this reads a complete checkpoint
        checkpoint, _ = storage.newest_valid(job.dir.checkpoints, run_plan)
        next_example = run_plan.example_of(checkpoint.iteration) if checkpoint is not None else 0
    needs_rollback = isinstance(conclusion, LossFinding | Quarantine)
    return History(
        stop_request=stop_request_from(store.jobs.get(job.id).stop_request),
        crashes=store.attempts.crashes(job.id),
        reboots=sum(
            other.reason == Reason.HOST_REBOOTED and now - (other.ended_at or now) < DAY_S for other in attempts
        ),
        stage=run_plan.stages[stage],
        next_example=next_example,
        survived=health.survived,
        repeated_stage=any(other.reason == Reason.OUT_OF_MEMORY for other in earlier),
        at_its_own_limit=(health.memory_share or 0.0) >= NEAR_THE_LIMIT,
        peak_bytes=health.peak_bytes,
        free_bytes=processes.memory()[0],
        lengths=health.lengths,
        obstacle=result.obstacle,
        waits=sum(1 for _ in takewhile(lambda other: other.reason == Reason.NETWORK, reversed(attempts))),
        machine=machine_cause(attempt, str(context.app.home.path)),
        conclusion=conclusion,
        stages=run_plan.stages,
        candidates=result.losses.candidates() if needs_rollback else (),
        batches_per_epoch=health.batches_per_epoch or (train_rows(job) or 0) // spec.batch_size,
    )


def note(attempt: Attempt, decision: Decision) -> Note | None:
    """Return the incident for a decision; None if the attempt ended as planned."""
    if decision.back_to is not None or decision.publish_until is not None:  # of the loss guard
        quarantined = attempt.outcome == Outcome.STOPPED and decision.reason is Reason.NOT_FINITE
        code = "quarantined" if quarantined else str(decision.reason)
        return Note(code, decision.detail, {**decision.evidence, "action": decision.answer})
    if decision.status not in (Status.WAITING, Status.HELD):
        return None
    if decision.evidence.get("waits", 1) != 1:
        return None  # the incident is recorded with the first of these attempts
    if attempt.outcome == Outcome.STOPPED and "why" in decision.evidence:
        more: dict[str, object] = {"iteration": attempt.last_iteration or attempt.first_iteration or 0}
    elif attempt.outcome == Outcome.CRASHED:
        more = {**crash_evidence(attempt), "action": decision.answer}
    else:
        return None
    return Note(str(decision.reason), decision.detail, {**decision.evidence, **more})


def is_handled(decision: Decision) -> bool:
    """Report whether the decision is a rollback of the loss guard. An early stop is not."""
    return decision.back_to is not None and decision.reason in GUARD_REASONS


def remember_fit(context: WorkerContext, result: AttemptResult) -> None:
    """Store whether the configuration of an attempt fitted into memory and its speed, for later submits and plans."""
    attempt, health, store = result.attempt, result.health, context.app.store
    stages = store.run_plans.get(result.job.id, result.spec).stages
    stage = stages[attempt.stage if attempt.stage is not None else -1]
    failed = attempt.outcome == Outcome.CRASHED and attempt.reason == Reason.OUT_OF_MEMORY
    if failed or health.trained:
        fit = Fit(
            fits=not failed,
            peak_bytes=health.peak_bytes,
            job_id=result.job.id,
            it_s=health.median_it_s,
            start_s=health.start_s,
            validation_s=health.validation_s,
        )
        store.fits.record(fit_key(result.spec, stage), fit, context.clock())
