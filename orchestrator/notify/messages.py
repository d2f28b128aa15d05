"""What a notification says: numbers, the place of the report, the next command. Pure; no judgement, no secrets."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.model.job import Attempt, Incident, Job, Message, NewMessage, ProgressPoint, Validation
from jobs.model.outcomes import Outcome, Reason
from jobs.model.states import Status
from jobs.policies.after_loss_alarm import GUARD_REASONS
from jobs.policies.decision import Decision
from orchestrator.formatting.incidents import describe
from orchestrator.formatting.text import duration, short_time

if TYPE_CHECKING:
    from jobs.model.spec import JobSpec

EARLIER = 3
"""Of the messages that one stands for, so many of the earlier ones are told with a line of their own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What the store knows of a job that has ended."""

    job: Job
    attempts: Sequence[Attempt]
    points: Sequence[ProgressPoint]
    validations: Sequence[Validation]
    tests: Sequence[Validation]
    verdict: str | None = None  # of its report


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
    folder = job.dir
    lines = [f"{job.iteration:,} of {job.iters:,} iterations in {_trained_for(facts)}", *losses(facts)]
    lines += _restarts(facts.attempts)
    if event == "finished":
        lines = [*([f"verdict: {facts.verdict}"] if facts.verdict else []), *lines]
    else:
        lines = [f"why: {decision.reason}: {decision.detail}", *lines]
    if event == "failed":
        lines.append(f"next: lq show {job.id}, then lq retry {job.id}")
    lines.append(_wanted(job, decision) if event == "needs_you" else f"report: {folder.report / 'report.md'}")
    picture = None if event == "needs_you" else str(folder.report / "loss_curve.png")
    return _about(job, event, f"{event}-{attempt}", lines, spec, title=event.replace("_", " "), attachment=picture)


def _wanted(job: Job, decision: Decision) -> str:
    """Return what a person is to do."""
    if decision.reason is Reason.DISK_FULL:
        return "next: make room on the disk; lq looks every minute, and the job goes on by itself"
    answer = f"{decision.answer}; " if decision.answer else ""
    return f"{answer}next: lq show {job.id}, then lq resume {job.id}"


def _about(
    job: Job,
    event: str,
    key: str,
    lines: Sequence[str],
    spec: JobSpec,
    *,
    title: str,
    attachment: str | None = None,
) -> NewMessage:
    return NewMessage(
        job_id=job.id,
        event=event,
        key=f"job-{job.id}-{key}",
        title=f"lq: {job.name} (job {job.id}) {title}",
        body="\n".join(lines),
        attachment=attachment,
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
        f"attempt {before.number} died: {before.detail}",
        f"resumed from iteration {now.first_iteration} ({now.quality}), {repeated} iterations repeated",
    ]
    return _about(job, "recovered", f"recovered-{now.number}", lines, spec, title="recovered")


def submitted(job: Job, spec: JobSpec) -> NewMessage:
    """Return the message for a job that was queued."""
    lines = [f"{job.iters:,} iterations of {spec.fine_tune_type} on {spec.model}"]
    return _about(job, "submitted", "submitted", lines, spec, title="submitted")


def started(job: Job, spec: JobSpec) -> NewMessage:
    """Return the message for a job that trains for the first time."""
    lines = [f"{job.iters:,} iterations of {spec.fine_tune_type} on {spec.model}"]
    return _about(job, "started", "started", lines, spec, title="started")


def guarded(job: Job, incident: Incident, spec: JobSpec) -> NewMessage:
    """Return the message for a run whose loss the guard put right.

    Args:
        job: the job.
        incident: what the guard saw and did.
        spec: what was asked for.
    """
    lines = [describe(incident).detail, f"it trains on; see: lq show {job.id}"]
    key = f"spike_handled-{incident.attempt}-{incident.code}-{int(incident.time)}"
    return _about(job, "spike_handled", key, lines, spec, title="spike handled")


def late(job: Job, spec: JobSpec, *, deadline: float, expected: float | None, zone: tzinfo | None) -> NewMessage:
    """Return the message for a job that will miss its deadline; one a deadline.

    Args:
        job: the job.
        spec: what was asked for.
        deadline: when it was to be done, unix seconds.
        expected: when it will be done at its present speed, unix seconds; None where nobody knows.
        zone: whose hours; None for the machine's own zone.
    """
    done = "not done, and when it will be is not known"
    if expected is not None:
        by = f"{duration(expected - deadline)} late"
        done = f"at its speed done at {short_time(expected, deadline, zone)}, {by}"
    lines = [
        f"wanted by {short_time(deadline, deadline, zone)}; {done}",
        f"{job.iteration:,} of {job.iters:,} iterations" + (f", {job.it_s:.3g} it/s" if job.it_s else ""),
        f"next: lq show {job.id}",
    ]
    return _about(job, "deadline", f"deadline-{int(deadline)}", lines, spec, title="will miss its deadline")


def skipped(job: Job, because: str, spec: JobSpec) -> NewMessage:
    """Return the message for a job that will not run, because one that it comes after failed.

    Args:
        job: the job.
        because: why, in one line.
        spec: what was asked for.
    """
    lines = [because, f"next: put that right, then submit again: lq submit {job.job_dir}/config.yaml"]
    return _about(job, "failed", "skipped", lines, spec, title="skipped")


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


def group_key(name: str, ended_at: float) -> str:
    """Return the key of the message of a group whose last job ended then."""
    return f"group-{name}-{int(ended_at)}"


def group_ended(
    name: str, jobs: Sequence[Job], best: Sequence[str], *, ended_at: float, picture: str | None, spec: JobSpec
) -> NewMessage:
    """Return the message for a group whose last job has ended.

    Args:
        name: of the group.
        jobs: all of it.
        best: the best of it, one line each.
        ended_at: when the last one ended, unix seconds; makes the key, so that one that goes on later can tell again.
        picture: of the curves.
        spec: of one of its jobs.
    """
    counts = {status: sum(job.status is status for job in jobs) for status in Status}
    told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    return NewMessage(
        job_id=None,
        event="finished",
        key=group_key(name, ended_at),
        title=f"lq: {name} (group of {len(jobs)}) finished",
        body="\n".join([told, *best, f"next: lq compare --group {shlex.quote(name)}"]),
        attachment=picture,
        tags=spec.lq.notify.tags,
    )


def file_rejected(name: str, because: str, *, lies_at: Path, key: str) -> NewMessage:
    """Return the message for a dropped file that could not be submitted.

    Args:
        name: of the file.
        because: why, in one line.
        lies_at: where it is now.
        key: the same for this file however often it is looked at, and for no other.
    """
    return NewMessage(
        job_id=None,
        event="needs_you",
        key=f"inbox-rejected-{key}",
        title=f"lq: {name} was not submitted",
        body=f"{because}\nit lies in {lies_at}\nnext: mend it and drop it again",
        attachment=None,
        tags=None,
    )


def inbox_shut(folder: Path, because: str, *, key: str) -> NewMessage:
    """Return the message for a drop folder that nothing is taken from.

    Args:
        folder: the drop folder.
        because: why, in one line.
        key: the same for this finding.
    """
    return NewMessage(
        job_id=None,
        event="needs_you",
        key=f"inbox-shut-{key}",
        title="lq: nothing is taken from the drop folder",
        body=f"{folder} {because}",
        attachment=None,
        tags=None,
    )


def counted(rows: Sequence[Message], zone: tzinfo | None) -> Message:
    """Return the last of several messages of a kind as one that tells of all.

    Args:
        rows: of the same event about the same job, oldest first; a single one is returned as it is.
        zone: whose hours; None for the machine's own zone.
    """
    *earlier, last = rows
    if not earlier:
        return last
    since = short_time(rows[0].created_at, last.created_at, zone)
    told = earlier[::-1][:EARLIER]
    lines = [f"{short_time(row.created_at, last.created_at, zone)} {row.body.partition(chr(10))[0]}" for row in told]
    more = [f"and {len(earlier) - len(told)} before"] if len(earlier) > len(told) else []
    body = "\n".join([last.body, "before that:", *lines, *more])
    alike = len({row.title for row in rows}) == 1
    count = f"{len(rows)} times since {since}" if alike else f"and {len(earlier)} more since {since}"
    return dataclasses.replace(last, title=f"{last.title} ({count})", body=body)


def losses(facts: Facts) -> list[str]:
    """Return a line each for what was measured of training, validation and test."""
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
    qualities = ", ".join(sorted({attempt.quality or "unknown" for attempt in resumed}))
    back = sum(attempt.reason in GUARD_REASONS for attempt in attempts)
    stopped = f", {back} stopped by the loss guard" if back else ""
    return [f"{len(attempts)} attempts, {crashes(attempts)} died{stopped}; resumes: {qualities}"]


def crashes(attempts: Sequence[Attempt]) -> int:
    """Return how many attempts died of themselves; one that the loss guard stopped is told as what that did."""
    return sum(attempt.outcome == Outcome.CRASHED and attempt.reason not in GUARD_REASONS for attempt in attempts)


def _trained_for(facts: Facts) -> str:
    return duration(sum((attempt.ended_at or attempt.started_at) - attempt.started_at for attempt in facts.attempts))
