"""The morning digest: one message at a set hour, of what ended, what needs a person, what runs and what is to come."""

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
from orchestrator.notify.messages import Facts
from orchestrator.report.stored_verdict import word_for

if TYPE_CHECKING:
    from orchestrator.store.store import Store

DAY_S = 24 * 3600.0
MOST_ENDED = 200
MOST_SHOWN = 8
"""Lines of each part; services cut or refuse what is longer than about 4,000 characters."""

_COMING = (Status.QUEUED, Status.WAITING)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told:
    """A job, and what the digest says of it beside what the job itself knows."""

    facts: Facts
    word: str  # the verdict of its report, or its status
    rollbacks: int  # how often the loss guard went back
    ends_at: float | None = None  # of a running job, in unix seconds; None if unknown

    @property
    def job(self) -> Job:
        """The job."""
        return self.facts.job


def write_if_due(
    store: Store, *, hour: str | None, audience: Sequence[str], now: float, zone: tzinfo | None = None
) -> Message | None:
    """Put today's digest into the outbox if its hour has come, it is not there yet, and there is something to tell.

    Args:
        store: jobs and outbox.
        hour: "07:00"; None for none.
        audience: the services that hear it; nothing is written for nobody.
        now: unix seconds.
        zone: whose hours; None for the machine's own zone.
    """
    if hour is None or not audience:
        return None
    day, moment = time_windows.latest(time_windows.parse_time(hour), now, zone)
    last = store.outbox.last_digest()
    if now - moment > DIGEST_LATE_S or (last is not None and last.key == _key(day)):
        return None
    since = last.created_at if last is not None else moment - DAY_S
    # what was submitted after the hour is no news of the night
    jobs = [job for job in store.jobs.overview(ended=MOST_ENDED) if job.submitted_at <= moment]
    history = RunHistory(store)
    recent = [job for job in jobs if job.status not in ENDED or (job.ended_at or 0.0) > since]
    told = [_told(store, history, job, now, zone) for job in recent]
    new = compose(day, told, store.queue.state(), since=since, now=now, zone=zone)
    return None if new is None else store.outbox.add(new, now)


def compose(
    day: date, told: Sequence[Told], queue: QueueState, *, since: float, now: float, zone: tzinfo | None
) -> NewMessage | None:
    """Return the digest of a day; None where there is nothing to tell.

    Args:
        day: whose morning it is.
        told: every live job, and those that ended since the last digest.
        queue: whether it hands out jobs.
        since: when the last digest was written, unix seconds.
        now: unix seconds.
        zone: whose hours; None for the machine's own zone.
    """
    ended = [one for one in told if one.job.status in (Status.SUCCEEDED, Status.FAILED, Status.SKIPPED)]
    running = [one for one in told if one.job.status is Status.RUNNING]
    wanting = [_wanting(one.job) for one in told if _wants_a_person(one.job)]
    coming = [one.job for one in told if one.job.status in _COMING and not _wants_a_person(one.job)]
    if not (ended or running or coming or wanting):
        return None
    if queue.paused_at is not None:
        wanting.insert(0, f"the queue is paused ({queue.because}); next: lq resume --queue")
    sections = [
        ("needs you", wanting),
        (f"ended since {short_time(since, now, zone)}", [_ended(one) for one in ended]),
        ("running", [_running(one, now, zone) for one in running]),
        ("to come", [_name(job) for job in coming]),
    ]
    lines = [line for head, found in sections if found for line in (head, *(f"- {one}" for one in _shown(found)))]
    return NewMessage(
        job_id=None,
        event=DIGEST,
        key=_key(day),
        title=_title(ended, len(running), len(coming), len(wanting)),
        body="\n".join(lines),
        attachment=_picture(ended[0].job) if len(ended) == 1 else None,
    )


def _key(day: date) -> str:
    return f"digest-{day.isoformat()}"


def _told(store: Store, history: RunHistory, job: Job, now: float, zone: tzinfo | None) -> Told:
    facts = Facts(
        job=job,
        attempts=store.attempts.of(job.id),
        points=(),
        validations=store.metrics.validations(job.id),
        tests=store.metrics.validations(job.id, kind="test"),
    )
    rollbacks = sum(stage.rollback > 0 for stage in store.run_plans.stages(job.id))
    spec = json.loads(store.jobs.spec_json(job.id)) if job.status is Status.RUNNING else None
    ends_at = history.ends_at(job, spec, now=now, zone=zone) if spec is not None else None
    return Told(facts=facts, word=word_for(job), rollbacks=rollbacks, ends_at=ends_at)


def _title(ended: Sequence[Told], running: int, coming: int, wanting: int) -> str:
    finished = sum(one.job.status is Status.SUCCEEDED for one in ended)
    counts = (
        (wanting, "needs you" if wanting == 1 else "need you"),
        (finished, "finished"),
        (len(ended) - finished, "failed"),
        (running, "running"),
        (coming, "to come"),
    )
    return "lq: " + ", ".join(f"{count} {word}" for count, word in counts if count)


def _wants_a_person(job: Job) -> bool:
    """Say whether lq, and not the user, has stopped a job until somebody does something."""
    held = job.status is Status.HELD and job.reason != Reason.STOPPED_BY_USER
    return held or (job.status is Status.WAITING and job.reason == Reason.DISK_FULL)


def _wanting(job: Job) -> str:
    if job.reason == Reason.DISK_FULL:
        return f"{_name(job)} waits for space on the disk: {job.detail}"
    return f"{_name(job)} is held: {job.detail}; next: lq resume {job.id}"


def _ended(one: Told) -> str:
    job = one.job
    if job.status is not Status.SUCCEEDED:
        return f"{_name(job)}: {job.status}: {job.reason}: {job.detail}; next: lq show {job.id}"
    word = "finished" if one.word == job.status else one.word
    seconds = sum((each.ended_at or each.started_at) - each.started_at for each in one.facts.attempts)
    trained = f"{job.iteration:,} iterations in {duration(seconds)}"
    return "; ".join([f"{_name(job)}: {word}", *messages.losses(one.facts), trained, *_troubles(one)])


def _running(one: Told, now: float, zone: tzinfo | None) -> str:
    job = one.job
    parts = [f"{_name(job)}: {job.iteration:,} of {job.iters:,} iterations"]
    if job.val_loss is not None:
        parts.append(f"validation loss {job.val_loss:.3f}")
    if one.ends_at is not None:
        parts.append(f"done in {duration(one.ends_at - now)}, at {short_time(one.ends_at, now, zone)}")
    return "; ".join([*parts, *_troubles(one)])


def _troubles(one: Told) -> list[str]:
    died = messages.crashes(one.facts.attempts)
    return [
        *([f"restarted {counted(died, 'time')}"] if died else []),
        *([f"rolled back {counted(one.rollbacks, 'time')}"] if one.rollbacks else []),
    ]


def _shown(lines: Sequence[str]) -> list[str]:
    more = len(lines) - MOST_SHOWN
    return [*lines[:MOST_SHOWN], f"and {more} more; see: lq status"] if more > 0 else list(lines)


def _name(job: Job) -> str:
    return f"{job.name} (job {job.id})"


def _picture(job: Job) -> str:
    return str(job.dir.report / "loss_curve.png")
