"""Why a job does not run now, and when it will, in words: for every verb that shows jobs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jobs.job import Job, QueueState
from jobs.states import Status
from orchestrator.cli import output

if TYPE_CHECKING:
    from jobs.timeline import Placed
    from orchestrator.app import App
    from orchestrator.schedule import Turn

_SAY_IT_ALL = (Status.RUNNING, Status.QUEUED, Status.SUCCEEDED, Status.CANCELLED)
"""States that leave no question open; the others have their reason told."""

_A_DAY_S = 24 * 3600.0


def waiting_turns(app: App, jobs: Sequence[Job]) -> dict[int, Turn]:
    """Return what keeps the jobs that wait for their turn, by id."""
    if not any(job.status in (Status.QUEUED, Status.WAITING) for job in jobs):
        return {}
    from orchestrator import device, schedule
    from workers.readings import Gauge

    in_use = device.obstacle(app.home)
    found = schedule.turns(app.store, now=time.time(), zone=None, read=Gauge().read, device=in_use)
    return {turn.job.id: turn for turn in found}


def forecast(app: App, turns: Mapping[int, Turn], *, slots: int) -> dict[int, Placed]:
    """Return when the jobs that wait for their turn will start, by id, as far as what ran before tells."""
    if not turns:
        return {}
    from orchestrator.forecast import starts

    return starts(app.store, now=time.time(), slots=slots)


def goes_on(job: Job, queue: QueueState, turn: Turn | None = None) -> str | None:
    """Say when a job that does not run goes on; None where it runs, has ended, is simply the next, or nobody knows.

    Args:
        job: the job.
        queue: whether it hands out jobs.
        turn: what keeps the job from training.
    """
    if job.status is Status.WAITING:
        due = job.not_before or 0.0
        return output.ahead(due) if due > time.time() else "as soon as it can"
    if job.status is Status.HELD:
        return f"with lq release {job.id}"
    if job.status is Status.PAUSED:
        return f"with lq resume {job.id}"
    if job.status is Status.QUEUED and queue.paused_at is not None:
        return "with lq resume --queue"
    until = turn.obstacle.until if turn is not None and turn.obstacle is not None else None
    return output.ahead(until) if until is not None else None


def waits(job: Job, queue: QueueState, turn: Turn | None) -> str | None:
    """Say why a job does not run, in one line; None where its state says it all."""
    because = f"{job.reason}: {job.detail}" if job.status not in _SAY_IT_ALL and job.detail else None
    if job.status is Status.QUEUED and turn is not None and turn.obstacle is not None:
        because = turn.obstacle.text
    if because is None:
        return None
    when = goes_on(job, queue, turn)
    verb = "starts" if job.status is Status.QUEUED and not job.attempts else "goes on"
    goes = f", {verb} {when}" if when is not None else ""
    return f"job {job.id} {job.status}{goes}: {because}"


def begins(placed: Placed | None) -> str:
    """Return when a job will start, in the place of when it will end; `~` says that it is a forecast."""
    if placed is None or placed.start is None:
        return output.NONE
    then, soon = time.localtime(placed.start), placed.start - time.time() < _A_DAY_S
    return time.strftime("~%H:%M" if soon else "~%a", then)
