"""The text of every message: what happened, the number that matters, the next command. Pure functions without secrets.

You read messages on a phone: one plain sentence, without paths of this machine.
"""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import tzinfo
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from jobs.model.job import Attempt, Incident, Job, Message, NewMessage, Validation
from jobs.model.outcomes import Outcome, Reason
from jobs.model.states import Status
from jobs.policies import early_stop
from jobs.policies.after_loss_alarm import GUARD_REASONS
from jobs.policies.decision import Decision
from orchestrator.formatting.incidents import iteration_of, title_of
from orchestrator.formatting.next_steps import fix_of
from orchestrator.formatting.text import counted, duration, short_loss, short_time

if TYPE_CHECKING:
    from jobs.model.spec import JobSpec
    from orchestrator.report.stored_verdict import StoredVerdict

EARLIER = 3
"""A message that stands for several shows this many of the earlier ones, one line each."""

VERDICTS: Mapping[str, str] = {  # by jobs.policies.verdict.Code
    "OK": "The model learned",
    "WASTED": "The model learned, but a checkpoint of the first half is as good as the best",
    "UNDERTRAINED": "The model was still improving at the end",
    "OVERFIT": "The model overfitted after its best checkpoint",
    "REGRESSED": "The model ended worse than its best checkpoint",
    "DIVERGED": "The training diverged",
    "INCONCLUSIVE": "The training finished, with too few validation rows or validations for a verdict",
}
_COMMAND = re.compile(r"`(?:LQ_HOME=(?:'[^`]*'|[^\s`]+) )?(lq [^`]+)`")
_FOLDERS = re.compile(r"(?<![\w:/])~?/(?:[^\s/:]+/)*(?=[^\s/:])")
_DEVIATIONS = re.compile(r":? [\d.,]+ standard deviations[^;]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MessageFacts:
    """What the store holds about a job, as far as messages use it."""

    job: Job
    attempts: Sequence[Attempt]
    validations: Sequence[Validation]
    verdict: StoredVerdict | None = None  # of its report


def submitted(job: Job, spec: JobSpec) -> NewMessage:
    """Return the message for a queued job."""
    return _about(job, "submitted", "submitted", _run(job, spec), spec, title="submitted")


def started(job: Job, spec: JobSpec) -> NewMessage:
    """Return the message for a job that trains for the first time."""
    return _about(job, "started", "started", _run(job, spec), spec, title="started")


def _run(job: Job, spec: JobSpec) -> str:
    model = PurePath(spec.model).name if PurePath(spec.model).is_absolute() else spec.model
    return f"{job.iters:,} iterations of {spec.fine_tune_type} on {model}."


def decided(facts: MessageFacts, event: str, decision: Decision, spec: JobSpec, attempt: int) -> NewMessage:
    """Return the message for a job that succeeded, failed, or needs the user; each attempt has its own."""
    job = facts.job
    text = {"finished": _finished, "failed": _failed, "needs_you": _needs_you}[event](facts, decision)
    drawn = event != "needs_you" and job.iteration > 0  # a run that never trained has no picture
    picture = str(job.dir.report / "loss_curve.png") if drawn else None
    return _about(job, event, f"{event}-{attempt}", text, spec, title=event.replace("_", " "), attachment=picture)


def _finished(facts: MessageFacts, _: Decision) -> str:
    words = VERDICTS.get(facts.verdict.code if facts.verdict else "", "The training finished")
    restarts = crashes(facts.attempts)
    resumed = f", {counted(restarts, 'restart')}" if restarts else ""
    return f"{words}: {loss_change(facts)}{resumed}; next: {_advised(facts) or f'lq chat {facts.job.id}'}"


def _failed(facts: MessageFacts, decision: Decision) -> str:
    job, reason = facts.job, decision.reason
    cause = title_of(reason).lower() if reason is Reason.DIVERGED else plain(decision.detail).partition(". ")[0]
    fix, command = fix_of(reason, job.id, job.job_dir)
    command = _advised(facts) or (command if "/" not in command else f"lq show {job.id}")
    when = f"Failed at iteration {job.iteration:,} of {job.iters:,}" if job.iteration else "It did not train"
    return f"{when}: {cause}; {fix.replace('`', '')}; next: {command}"


def _advised(facts: MessageFacts) -> str | None:
    """Return the command of the advice, if it has one that needs no path."""
    found = _COMMAND.search(facts.verdict.advice) if facts.verdict else None
    return found[1] if found and "/" not in found[1] else None


def plain(detail: str) -> str:
    """Return a detail without the folders of paths and without standard deviations."""
    return _DEVIATIONS.sub("", _FOLDERS.sub("", detail)).rstrip(".")


def _needs_you(facts: MessageFacts, decision: Decision) -> str:
    job, detail = facts.job, plain(decision.detail)
    if decision.reason is Reason.DISK_FULL:
        return f"Waits for disk space: {detail}; next: free disk space, and lq resumes the job within a minute"
    if decision.reason is Reason.NETWORK:
        return f"Waits for the network: {detail}; next: nothing; lq tries again at least every 15 min"
    if "machine" in decision.evidence:
        check = decision.evidence["machine"]
        return f"Stopped by the machine: {detail}; next: lq doctor; lq tries again every 10 min (its check: {check})"
    answer = f"; {decision.answer}" if decision.answer else ""
    return f"Stopped at iteration {job.iteration:,}: {detail}{answer}; next: lq resume {job.id}"


def recovered(job: Job, before: Attempt, now: Attempt, spec: JobSpec) -> NewMessage:
    """Return the message for a job that trains again after the attempt `before` crashed."""
    repeated = max(0, (before.last_iteration or 0) - (now.first_iteration or 0))
    resumed = f"resumed at iteration {now.first_iteration or 0:,} ({now.quality})"
    crashed = f"Attempt {before.number} crashed: {plain(before.detail or '')}"
    text = f"{crashed}; {resumed}, {counted(repeated, 'iteration')} repeated"
    return _about(job, "recovered", f"recovered-{now.number}", text, spec, title="recovered")


def spike_handled(job: Job, incident: Incident, spec: JobSpec) -> NewMessage:
    """Return the message for a rollback of the loss guard."""
    place, back = iteration_of(incident), incident.evidence.get("back_to")
    at = f" at iteration {place:,}" if place is not None else ""
    action = f"lq went back to iteration {back:,}" if isinstance(back, int) else "lq went back"
    key = f"spike_handled-{incident.attempt}-{incident.code}-{int(incident.time)}"
    text = f"{title_of(incident.code)}{at}; {action}, and the training continues; details: lq show {job.id}"
    return _about(job, "spike_handled", key, text, spec, title="spike handled")


def late(job: Job, spec: JobSpec, *, deadline: float, expected: float | None, zone: tzinfo | None) -> NewMessage:
    """Return the message for a job that will miss its deadline. Takes the arguments of `missed_deadline`."""
    missed = missed_deadline(deadline, expected, beside=deadline, zone=zone)
    text = f"{missed[0].upper()}{missed[1:]} at {job.iteration:,} of {job.iters:,} iterations; next: lq show {job.id}"
    return _about(job, "deadline", f"deadline-{int(deadline)}", text, spec, title="will miss its deadline")


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
    text = f"It will not run: {because}; fix that job, then submit this one again; next: lq show {job.id}"
    return _about(job, "failed", "skipped", text, spec, title="skipped")


def queue_paused(job: Job, because: str, spec: JobSpec, now: float) -> NewMessage:
    """Return the message for a queue that lq paused because of this job."""
    about = _about(
        job, "needs_you", "", f"{plain(because)}; next: lq show {job.id}, then lq resume --queue", spec, title=""
    )
    return dataclasses.replace(about, key=f"queue-paused-{int(now)}", title="lq: the queue is paused and needs you")


def _about(
    job: Job, event: str, key: str, text: str, spec: JobSpec, *, title: str, attachment: str | None = None
) -> NewMessage:
    return NewMessage(
        job_id=job.id,
        event=event,
        key=f"job-{job.id}-{key}",
        title=f"lq: {job.name} (job {job.id}) {title}",
        body=text,
        attachment=attachment,
        tags=spec.lq.notify.tags,
    )


def group_key(name: str, ended_at: float) -> str:
    """Return the key of the message about a group whose last job ended at this time, in unix seconds."""
    return f"group-{name}-{int(ended_at)}"


def group_ended(
    name: str, jobs: Sequence[Job], best: str, *, ended_at: float, picture: str | None, spec: JobSpec
) -> NewMessage:
    """Return the message for a group whose last job has ended; a group that continues is reported again."""
    counts = {status: sum(job.status is status for job in jobs) for status in Status}
    summary = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    return NewMessage(
        job_id=None,
        event="finished",
        key=group_key(name, ended_at),
        title=f"lq: {name} (group of {len(jobs)}) finished",
        body=f"{best}; {summary}; next: lq compare --group {shlex.quote(name)}",
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
        body=f"{plain(because)}; moved to {folder.name}; next: correct the file and put it into the inbox again",
    )


def inbox_unusable(because: str, *, key: str) -> NewMessage:
    """Return the message for an inbox folder that lq does not read; the key is unique to this problem and day."""
    return NewMessage(
        job_id=None,
        event="needs_you",
        key=f"inbox-shut-{key}",
        title="lq: the inbox folder is not read",
        body=f"The inbox folder {because}; next: lq doctor",
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


def loss_change(facts: MessageFacts) -> str:
    """Return the validation loss before training and at best, or the train loss if nothing was validated."""
    best = early_stop.best(facts.validations)
    if best is None:
        return f"train loss {short_loss(facts.job.train_loss)}"
    first = facts.validations[0]
    before = f"{short_loss(first.loss)} -> " if first.iteration < best.iteration else ""
    return f"validation loss {before}{short_loss(best.loss)} (best, iteration {best.iteration:,})"


def crashes(attempts: Sequence[Attempt]) -> int:
    """Return how many attempts crashed, without those that the loss guard stopped."""
    return sum(attempt.outcome == Outcome.CRASHED and attempt.reason not in GUARD_REASONS for attempt in attempts)
