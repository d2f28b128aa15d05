"""The daily digest: one message at a set hour with what ended, what needs the user, what runs and what is queued."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import date, tzinfo
from typing import TYPE_CHECKING

from jobs.model import time_windows
from jobs.model.job import Job, Message, NewMessage, QueueState
from jobs.model.outcomes import Reason
from jobs.model.states import ENDED, Status
from jobs.policies.delivery import DIGEST, DIGEST_LATE_S
from orchestrator.estimation.history import RunHistory
from orchestrator.formatting.text import counted, duration, short_time
from orchestrator.notify import messages
from orchestrator.notify.messages import MessageFacts
from orchestrator.report.stored_verdict import word_for

if TYPE_CHECKING:
    from orchestrator.notify.publisher import Publisher
    from orchestrator.store.store import Store

DAY_S = 24 * 3600.0
MOST_ENDED = 200
MOST_SHOWN = 8
"""Lines of each section; services cut or refuse messages of more than about 4,000 characters."""

_QUEUED = (Status.QUEUED, Status.WAITING)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DigestEntry:
    """A job in the digest."""

    facts: MessageFacts
    word: str  # the code of the verdict of its report, or its status
    rollbacks: int  # by the loss guard
    ends_at: float | None = None  # estimated end of a running job, unix seconds; None if unknown

    @property
    def job(self) -> Job:
        """The job."""
        return self.facts.job


def publish_if_due(
    store: Store, publisher: Publisher, *, hour: str, now: float, zone: tzinfo | None = None
) -> Message | None:
    """Publish today's digest if its hour, such as 07:00, has passed, it does not exist yet, and is not empty."""
    day, moment = time_windows.latest(time_windows.parse_time(hour), now, zone)
    last = store.outbox.last_digest()
    if now - moment > DIGEST_LATE_S or (last is not None and last.key == _key(day)):
        return None
    since = last.created_at if last is not None else moment - DAY_S

    def compose() -> NewMessage | None:
        # a job that was submitted after the hour belongs into the next digest
        jobs = [job for job in store.jobs.overview(ended=MOST_ENDED) if job.submitted_at <= moment]
        recent = [job for job in jobs if job.status not in ENDED or (job.ended_at or 0.0) > since]
        history = RunHistory(store)
        entries = [_entry(store, history, job, now, zone) for job in recent]
        return compose_digest(day, entries, store.queue.state(), since=since, now=now, zone=zone)

    return publisher.publish(DIGEST, compose, now=now)


def compose_digest(
    day: date, entries: Sequence[DigestEntry], queue: QueueState, *, since: float, now: float, zone: tzinfo | None
) -> NewMessage | None:
    """Return the digest of a day from every live job and those that ended since the last digest; None if empty."""
    ended = [entry for entry in entries if entry.job.status in (Status.SUCCEEDED, Status.FAILED, Status.SKIPPED)]
    running = [entry for entry in entries if entry.job.status is Status.RUNNING]
    needs_user = [_needs_user_line(entry.job) for entry in entries if _needs_user(entry.job)]
    queued = [entry.job for entry in entries if entry.job.status in _QUEUED and not _needs_user(entry.job)]
    if not (ended or running or queued or needs_user):
        return None
    if queue.paused_at is not None:
        needs_user.insert(0, f"the queue is paused ({queue.because}); next: lq resume --queue")
    sections = [
        ("needs you", needs_user),
        (f"ended since {short_time(since, now, zone)}", [_ended_line(entry) for entry in ended]),
        ("running", [_running_line(entry, now, zone) for entry in running]),
        ("queued", [_name(job) for job in queued]),
    ]
    lines = [line for head, items in sections if items for line in (head, *(f"- {item}" for item in _shown(items)))]
    return NewMessage(
        job_id=None,
        event=DIGEST,
        key=_key(day),
        title=_title(ended, len(running), len(queued), len(needs_user)),
        body="\n".join(lines),
        attachment=str(ended[0].job.dir.report / "loss_curve.png") if len(ended) == 1 else None,
    )


def _key(day: date) -> str:
    return f"digest-{day.isoformat()}"


def _entry(store: Store, history: RunHistory, job: Job, now: float, zone: tzinfo | None) -> DigestEntry:
    facts = MessageFacts(
        job=job,
        attempts=store.attempts.of(job.id),
        validations=store.metrics.validations(job.id),
    )
    rollbacks = sum(stage.rollback > 0 for stage in store.run_plans.stages(job.id))
    spec = json.loads(store.jobs.spec_json(job.id)) if job.status is Status.RUNNING else None
    ends_at = history.ends_at(job, spec, now=now, zone=zone) if spec is not None else None
    return DigestEntry(facts=facts, word=word_for(job), rollbacks=rollbacks, ends_at=ends_at)


def _title(ended: Sequence[DigestEntry], running: int, queued: int, needs_user: int) -> str:
    finished = sum(entry.job.status is Status.SUCCEEDED for entry in ended)
    counts = (
        (needs_user, "needs you" if needs_user == 1 else "need you"),
        (finished, "finished"),
        (len(ended) - finished, "failed"),
        (running, "running"),
        (queued, "queued"),
    )
    return "lq: " + ", ".join(f"{count} {word}" for count, word in counts if count)


def _needs_user(job: Job) -> bool:
    """Report whether lq stopped the job and it cannot continue without the user."""
    held = job.status is Status.HELD and job.reason != Reason.STOPPED_BY_USER
    return held or (job.status is Status.WAITING and job.reason == Reason.DISK_FULL)


def _needs_user_line(job: Job) -> str:
    if job.reason == Reason.DISK_FULL:
        return f"{_name(job)} waits for disk space: {messages.plain(job.detail or '')}"
    return f"{_name(job)} is held: {messages.plain(job.detail or '')}; next: lq resume {job.id}"


def _ended_line(entry: DigestEntry) -> str:
    job = entry.job
    if job.status is not Status.SUCCEEDED:
        detail = messages.plain(job.detail or "")
        return f"{_name(job)}: {job.status}: {job.reason}: {detail}; next: lq show {job.id}"
    words = messages.VERDICTS.get(entry.word, "Finished")
    seconds = sum((attempt.ended_at or attempt.started_at) - attempt.started_at for attempt in entry.facts.attempts)
    trained = f"{job.iteration:,} iterations in {duration(seconds)}"
    return "; ".join(
        [f"{_name(job)}: {words[0].lower()}{words[1:]}", messages.loss_change(entry.facts), trained, *_troubles(entry)]
    )


def _running_line(entry: DigestEntry, now: float, zone: tzinfo | None) -> str:
    job = entry.job
    parts = [f"{_name(job)}: {job.iteration:,} of {job.iters:,} iterations"]
    if job.val_loss is not None:
        parts.append(f"validation loss {job.val_loss:.3f}")
    if entry.ends_at is not None:
        parts.append(f"{duration(entry.ends_at - now)} left, ETA {short_time(entry.ends_at, now, zone)}")
    return "; ".join([*parts, *_troubles(entry)])


def _troubles(entry: DigestEntry) -> list[str]:
    crashes = messages.crashes(entry.facts.attempts)
    return [
        *([f"restarted {counted(crashes, 'time')}"] if crashes else []),
        *([f"rolled back {counted(entry.rollbacks, 'time')}"] if entry.rollbacks else []),
    ]


def _shown(lines: Sequence[str]) -> list[str]:
    more = len(lines) - MOST_SHOWN
    return [*lines[:MOST_SHOWN], f"and {more} more; see: lq status"] if more > 0 else list(lines)


def _name(job: Job) -> str:
    return f"{job.name} (job {job.id})"
