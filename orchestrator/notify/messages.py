"""The text of every message: numbers, the path of the report, the next command. Pure functions without secrets."""

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
"""A message that stands for several shows this many of the earlier ones, one line each."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MessageFacts:
    """What the store holds about a job, as far as messages use it."""

    job: Job
    attempts: Sequence[Attempt]
    points: Sequence[ProgressPoint]
    validations: Sequence[Validation]
    tests: Sequence[Validation]
    verdict: str | None = None  # of its report


def submitted(job: Job, spec: JobSpec) -> NewMessage:
    """Return the message for a queued job."""
    return _about(job, "submitted", "submitted", [_run(job, spec)], spec, title="submitted")


def started(job: Job, spec: JobSpec) -> NewMessage:
    """Return the message for a job that trains for the first time."""
    return _about(job, "started", "started", [_run(job, spec)], spec, title="started")


def _run(job: Job, spec: JobSpec) -> str:
    return f"{job.iters:,} iterations of {spec.fine_tune_type} on {spec.model}"


def decided(facts: MessageFacts, event: str, decision: Decision, spec: JobSpec, attempt: int) -> NewMessage:
    """Return the message for a job that succeeded, failed, or needs the user; each attempt has its own."""
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
    lines.append(_next_step(job, decision) if event == "needs_you" else f"report: {folder.report / 'report.md'}")
    picture = None if event == "needs_you" else str(folder.report / "loss_curve.png")
    return _about(job, event, f"{event}-{attempt}", lines, spec, title=event.replace("_", " "), attachment=picture)


def _next_step(job: Job, decision: Decision) -> str:
    if decision.reason is Reason.DISK_FULL:
        return "next: free disk space; lq checks every minute and then resumes the job"
    answer = f"{decision.answer}; " if decision.answer else ""
    return f"{answer}next: lq show {job.id}, then lq resume {job.id}"


def recovered(job: Job, before: Attempt, now: Attempt, spec: JobSpec) -> NewMessage:
    """Return the message for a job that trains again after the attempt `before` crashed."""
    repeated = max(0, (before.last_iteration or 0) - (now.first_iteration or 0))
    lines = [
        f"attempt {before.number} crashed: {before.detail}",
        f"resumed from iteration {now.first_iteration} ({now.quality}), {repeated} iterations repeated",
    ]
    return _about(job, "recovered", f"recovered-{now.number}", lines, spec, title="recovered")


def spike_handled(job: Job, incident: Incident, spec: JobSpec) -> NewMessage:
    """Return the message for a rollback of the loss guard."""
    lines = [describe(incident).detail, f"training continues; see: lq show {job.id}"]
    key = f"spike_handled-{incident.attempt}-{incident.code}-{int(incident.time)}"
    return _about(job, "spike_handled", key, lines, spec, title="spike handled")


def late(job: Job, spec: JobSpec, *, deadline: float, expected: float | None, zone: tzinfo | None) -> NewMessage:
    """Return the message for a job that will miss its deadline. Takes the arguments of `missed_deadline`."""
    lines = [
        missed_deadline(deadline, expected, beside=deadline, zone=zone),
        f"{job.iteration:,} of {job.iters:,} iterations" + (f", {job.it_s:.3g} it/s" if job.it_s else ""),
        f"next: lq show {job.id}",
    ]
    return _about(job, "deadline", f"deadline-{int(deadline)}", lines, spec, title="will miss its deadline")


def missed_deadline(deadline: float, expected: float | None, *, beside: float, zone: tzinfo | None) -> str:
    """Return one line about a deadline that will be missed.

    Args:
        deadline: unix seconds.
        expected: estimated end, unix seconds; None if it is unknown.
        beside: unix seconds; times of another day than this one are shown with their day.
        zone: time zone of the text; None for the machine's own.
    """
    missed = f"deadline {short_time(deadline, beside, zone)} will be missed"
    if expected is None:
        return f"{missed}: ETA unknown"
    return f"{missed}: ETA {short_time(expected, beside, zone)} ({duration(expected - deadline)} late)"


def skipped(job: Job, because: str, spec: JobSpec) -> NewMessage:
    """Return the message for a job that will not run because a job that it waits for failed."""
    lines = [because, f"next: fix that job, then submit this one again: lq submit {job.job_dir}/config.yaml"]
    return _about(job, "failed", "skipped", lines, spec, title="skipped")


def queue_paused(job: Job, because: str, spec: JobSpec, now: float) -> NewMessage:
    """Return the message for a queue that lq paused because of this job."""
    lines = [because, f"next: lq show {job.id}, then lq resume --queue"]
    about = _about(job, "needs_you", "", lines, spec, title="")
    return dataclasses.replace(about, key=f"queue-paused-{int(now)}", title="lq: the queue is paused and needs you")


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


def group_key(name: str, ended_at: float) -> str:
    """Return the key of the message about a group whose last job ended at this time, in unix seconds."""
    return f"group-{name}-{int(ended_at)}"


def group_ended(
    name: str, jobs: Sequence[Job], best: Sequence[str], *, ended_at: float, picture: str | None, spec: JobSpec
) -> NewMessage:
    """Return the message for a group whose last job has ended; a group that continues is reported again."""
    counts = {status: sum(job.status is status for job in jobs) for status in Status}
    summary = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    return NewMessage(
        job_id=None,
        event="finished",
        key=group_key(name, ended_at),
        title=f"lq: {name} (group of {len(jobs)}) finished",
        body="\n".join([summary, *best, f"next: lq compare --group {shlex.quote(name)}"]),
        attachment=picture,
        tags=spec.lq.notify.tags,
    )


def file_rejected(name: str, because: str, *, folder: Path, key: str) -> NewMessage:
    """Return the message for an inbox file that could not be submitted and was moved to a folder."""
    return NewMessage(
        job_id=None,
        event="needs_you",
        key=f"inbox-rejected-{key}",
        title=f"lq: {name} was not submitted",
        body=f"{because}\nmoved to {folder}\nnext: correct the file and put it into the inbox again",
    )


def inbox_unusable(folder: Path, because: str, *, key: str) -> NewMessage:
    """Return the message for an inbox folder that lq does not read; the key is unique to this problem and day."""
    return NewMessage(
        job_id=None,
        event="needs_you",
        key=f"inbox-shut-{key}",
        title="lq: the inbox folder is not read",
        body=f"{folder} {because}",
    )


def merged(rows: Sequence[Message], zone: tzinfo | None) -> Message:
    """Return the last of several messages of one event and one job, oldest first, as one message about all of them."""
    *earlier, last = rows
    if not earlier:
        return last
    since = short_time(rows[0].created_at, last.created_at, zone)
    shown = earlier[::-1][:EARLIER]
    lines = [f"{short_time(row.created_at, last.created_at, zone)} {row.body.partition(chr(10))[0]}" for row in shown]
    more = [f"and {len(earlier) - len(shown)} before"] if len(earlier) > len(shown) else []
    body = "\n".join([last.body, "before that:", *lines, *more])
    alike = len({row.title for row in rows}) == 1
    count = f"{len(rows)} times since {since}" if alike else f"and {len(earlier)} more since {since}"
    return dataclasses.replace(last, title=f"{last.title} ({count})", body=body)


def losses(facts: MessageFacts) -> list[str]:
    """Return a line for each of training, validation and test loss that was measured."""
    lines = []
    if facts.points:
        lines.append(f"train loss {facts.points[0].train_loss:.3f} -> {facts.points[-1].train_loss:.3f}")
    if facts.validations:
        best = min(facts.validations, key=lambda validation: validation.loss)
        first, last = facts.validations[0], facts.validations[-1]
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
    by_guard = sum(attempt.reason in GUARD_REASONS for attempt in attempts)
    stopped = f", {by_guard} stopped by the loss guard" if by_guard else ""
    return [f"{len(attempts)} attempts, {crashes(attempts)} crashed{stopped}; resumes: {qualities}"]


def crashes(attempts: Sequence[Attempt]) -> int:
    """Return how many attempts crashed, without those that the loss guard stopped."""
    return sum(attempt.outcome == Outcome.CRASHED and attempt.reason not in GUARD_REASONS for attempt in attempts)


def _trained_for(facts: MessageFacts) -> str:
    return duration(sum((attempt.ended_at or attempt.started_at) - attempt.started_at for attempt in facts.attempts))
