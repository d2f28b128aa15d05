"""Why a job does not run now, and when it will, in words: for every verb that shows jobs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jobs.model.job import Job, QueueState
from jobs.model.states import Status
from orchestrator.formatting import text as fmt
from orchestrator.worker import control

if TYPE_CHECKING:
    from jobs.scheduling.timeline import JobTimes
    from orchestrator.core.app import App
    from orchestrator.planning.queue_forecast import QueueForecast
    from orchestrator.scheduling.eligibility import Turn

_RESUMABLE = (Status.HELD, Status.PAUSED)
_SAY_IT_ALL = (Status.RUNNING, Status.QUEUED, Status.SUCCEEDED, Status.CANCELLED)
"""States that leave no question open; the others have their reason told."""


def waiting_turns(app: App, jobs: Sequence[Job]) -> dict[int, Turn]:
    """Return what keeps the jobs that wait for their turn from training, by id."""
    if not any(job.status in (Status.QUEUED, Status.WAITING) for job in jobs):
        return {}
    from orchestrator.scheduling import eligibility

    return {turn.job.id: turn for turn in eligibility.turns(app, slots=_slots(app))}


def forecast_of(app: App, jobs: Sequence[Job]) -> QueueForecast:
    """Return when the jobs of the queue will start and end, and how long each will take, as far as that is known."""
    from orchestrator.planning.queue_forecast import QueueForecast, forecast

    if not any(job.status in (Status.QUEUED, Status.WAITING, Status.RUNNING) for job in jobs):
        return QueueForecast()
    return forecast(app.store, now=time.time(), slots=_slots(app))


def _slots(app: App) -> int:
    """Return how many jobs the running worker trains at once; 1 if none runs."""
    return int((control.running(app.home) or {}).get("slots", 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wait:
    """Why a job does not run, and when it will. Equal for jobs that wait for the same."""

    status: Status
    because: str
    first_start: bool  # it has not run yet
    when: str | None  # None if unknown or if a command is needed
    command: str | None  # the command that lets it run, without job ids


def goes_on(job: Job, queue: QueueState, turn: Turn | None = None) -> str | None:
    """Return when a job will run; None if it runs, has ended, is next, or if that is unknown."""
    return f"with lq resume {job.id}" if job.status in _RESUMABLE else _when(job, queue, turn)


def _when(job: Job, queue: QueueState, turn: Turn | None) -> str | None:
    if job.status is Status.WAITING:
        due = job.not_before or 0.0
        return fmt.upcoming(due) if due > time.time() else "as soon as it can"
    if job.status is Status.QUEUED and queue.paused_at is not None:
        return "with lq resume --queue"
    until = turn.obstacle.until if turn is not None and turn.obstacle is not None else None
    return fmt.upcoming(until) if until is not None else None


def wait_of(job: Job, queue: QueueState, turn: Turn | None) -> Wait | None:
    """Return why a job does not run; None if its status says it all."""
    because = f"{job.reason}: {job.detail}" if job.status not in _SAY_IT_ALL and job.detail else None
    if job.status is Status.QUEUED and turn is not None and turn.obstacle is not None:
        because = turn.obstacle.text
    if because is None:
        return None
    return Wait(
        status=job.status,
        because=because,
        first_start=job.status is Status.QUEUED and not job.attempts,
        when=_when(job, queue, turn),
        command="lq resume" if job.status in _RESUMABLE else None,
    )


def wait_line(wait: Wait, ids: Sequence[int]) -> str:
    """Return one line for the jobs that wait for the same."""
    several = len(ids) > 1
    when = f"with {wait.command} {spans(ids)}" if wait.command is not None else wait.when
    verb = "start" if wait.first_start else "resume"
    goes = f", {verb}{'' if several else 's'} {when}" if when is not None else ""
    return f"job{'s' if several else ''} {spans(ids)} {wait.status}{goes}: {wait.because}"


def waits(job: Job, queue: QueueState, turn: Turn | None) -> str | None:
    """Return the line of one job."""
    wait = wait_of(job, queue, turn)
    return None if wait is None else wait_line(wait, [job.id])


def reasons(jobs: Sequence[Job], queue: QueueState, turns: Mapping[int, Turn]) -> list[tuple[Status, str]]:
    """Return the status and a line for each group of jobs that wait for the same."""
    alike: dict[Wait, list[int]] = {}
    for job in jobs:
        wait = wait_of(job, queue, turns.get(job.id))
        if wait is not None:
            alike.setdefault(wait, []).append(job.id)
    return [(wait.status, wait_line(wait, ids)) for wait, ids in alike.items()]


def spans(ids: Sequence[int]) -> str:
    """Return ids as one types them: 3 5-7."""
    found: list[list[int]] = []
    for one in sorted(ids):
        if found and one == found[-1][1] + 1:
            found[-1][1] = one
        else:
            found.append([one, one])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in found)


def begins(times: JobTimes | None) -> str:
    """Return when a job will start; `~` marks a forecast."""
    start = times.start if times is not None else None
    return fmt.NONE if start is None else f"~{fmt.short_time(start)}"
