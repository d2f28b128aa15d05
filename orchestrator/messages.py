"""What a notification says: numbers, the place of the report, the next command. Pure; no verdicts, no secrets."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from jobs.job import Attempt, Job, NewMessage, ProgressPoint, Validation
from jobs.outcomes import Outcome
from jobs.policy import Decision
from jobs.spec import JobSpec
from orchestrator.report.wording import duration
from workers.job_dir import JobDir


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What the store knows of a job that has ended."""

    job: Job
    attempts: Sequence[Attempt]
    points: Sequence[ProgressPoint]
    validations: Sequence[Validation]
    tests: Sequence[Validation]


def decided(facts: Facts, event: str, decision: Decision, spec: JobSpec, attempt: int) -> NewMessage:
    """Return the message for a job that succeeded, failed, or needs a person.

    Args:
        facts: what was measured.
        event: finished, failed or needs_you.
        decision: what became of the job.
        spec: what was asked for.
        attempt: the number of its last attempt; makes the key, so that a job retried later can tell again.
    """
    job = facts.job
    folder = JobDir(Path(job.job_dir))
    lines = [f"{job.iteration} of {job.iters} iterations in {_trained_for(facts)}", *_losses(facts)]
    lines += _restarts(facts.attempts)
    if event == "failed":
        lines += [f"why: {decision.reason}: {decision.detail}", f"next: lq show {job.id}, then lq retry {job.id}"]
    if event == "needs_you":
        lines += [f"why: {decision.reason}: {decision.detail}", decision.answer]
    else:
        lines.append(f"report: {folder.report / 'report.md'}")
    return NewMessage(
        job_id=job.id,
        event=event,
        key=f"job-{job.id}-{event}-{attempt}",
        title=f"lq: {job.name} (job {job.id}) {event.replace('_', ' ')}",
        body="\n".join(lines),
        attachment=None if event == "needs_you" else str(folder.report / "loss_curve.png"),
        tags=spec.lq.notify.tags,
    )


def recovered(job: Job, before: Attempt, now: Attempt, spec: JobSpec) -> NewMessage:
    """Return the message for a job that died and trains again.

    Args:
        job: the job.
        before: the attempt that died.
        now: the attempt that goes on.
        spec: what was asked for.
    """
    repeated = max(0, (before.last_iteration or 0) - (now.first_iteration or 0))
    lines = [
        f"attempt {before.number} ended: {before.detail}",
        f"resumed from iteration {now.first_iteration} ({now.quality}), {repeated} iterations repeated",
    ]
    return NewMessage(
        job_id=job.id,
        event="recovered",
        key=f"job-{job.id}-recovered-{now.number}",
        title=f"lq: {job.name} (job {job.id}) recovered",
        body="\n".join(lines),
        attachment=None,
        tags=spec.lq.notify.tags,
    )


def started(job: Job, spec: JobSpec) -> NewMessage:
    """Return the message for a job that trains for the first time."""
    return NewMessage(
        job_id=job.id,
        event="started",
        key=f"job-{job.id}-started",
        title=f"lq: {job.name} (job {job.id}) started",
        body=f"{job.iters} iterations of {spec.fine_tune_type} on {spec.model}",
        attachment=None,
        tags=spec.lq.notify.tags,
    )


def queue_paused(job: Job, because: str, spec: JobSpec, moment: float) -> NewMessage:
    """Return the message for a queue that was paused.

    Args:
        job: the job whose death paused it.
        because: why, in one line.
        spec: of that job.
        moment: unix seconds; makes the key.
    """
    return NewMessage(
        job_id=job.id,
        event="needs_you",
        key=f"queue-paused-{int(moment)}",
        title="lq: the queue is paused and needs you",
        body=f"{because}\nnext: lq show {job.id}, then lq resume --queue",
        attachment=None,
        tags=spec.lq.notify.tags,
    )


def _losses(facts: Facts) -> list[str]:
    lines = []
    if facts.points:
        lines.append(f"train loss {facts.points[0].train_loss:.3f} -> {facts.points[-1].train_loss:.3f}")
    if facts.validations:
        best = min(facts.validations, key=lambda validation: validation.loss)
        last = facts.validations[-1]
        first = facts.validations[0]
        lines.append(
            f"validation loss {first.loss:.3f} -> {last.loss:.3f}, best {best.loss:.3f} at iteration {best.iteration}"
        )
    lines += [f"test loss {test.loss:.3f} at iteration {test.iteration}" for test in facts.tests]
    return lines


def _restarts(attempts: Sequence[Attempt]) -> list[str]:
    resumed = [attempt for attempt in attempts if attempt.number > 1]
    if not resumed:
        return []
    deaths = sum(attempt.outcome == Outcome.DIED for attempt in attempts)
    qualities = ", ".join(sorted({attempt.quality or "unknown" for attempt in resumed}))
    return [f"{len(attempts)} attempts, {deaths} died; resumes: {qualities}"]


def _trained_for(facts: Facts) -> str:
    return duration(sum((attempt.ended_at or attempt.started_at) - attempt.started_at for attempt in facts.attempts))
