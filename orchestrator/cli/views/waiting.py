"""Why a job does not run, and when it will: for every verb that shows jobs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jobs.model.job import Job, QueueState
from jobs.model.states import Status
from orchestrator.formatting import text as fmt
from orchestrator.worker import control
from workers.system.processes import is_alive

INTERRUPTED = "interrupted; resumes when a worker starts"

if TYPE_CHECKING:
    from orchestrator.core.app import App
    from orchestrator.planning.queue_forecast import QueueForecast
    from orchestrator.scheduling.eligibility import Turn

_COMMANDS = {Status.HELD: "lq resume", Status.PAUSED: "lq resume"}
_SELF_EXPLANATORY = (Status.RUNNING, Status.QUEUED, Status.SUCCEEDED, Status.CANCELLED)


def waiting_turns(app: App, jobs: Sequence[Job], *, now: float | None = None) -> dict[int, Turn]:
    """Return what keeps each queued or waiting job from starting, by id."""
    if not any(job.status in (Status.QUEUED, Status.WAITING) for job in jobs):
        return {}
    from orchestrator.scheduling import eligibility

    return {turn.job.id: turn for turn in eligibility.turns(app, slots=_slots(app), now=now)}


def forecast_of(app: App, jobs: Sequence[Job], *, now: float | None = None) -> QueueForecast:
    """Return when the jobs of the queue will start and end, and how long each will take, as far as that is known."""
    from orchestrator.planning.queue_forecast import QueueForecast, forecast

    if not any(job.status in (Status.QUEUED, Status.WAITING, Status.RUNNING) for job in jobs):
        return QueueForecast()
    known = forecast(app.store, now=time.time() if now is None else now, slots=_slots(app))
    stopped = interrupted(app, jobs)
    return QueueForecast(
        time_left={job_id: left for job_id, left in known.time_left.items() if job_id not in stopped},
        times={job_id: times for job_id, times in known.times.items() if job_id not in stopped},
    )


def interrupted(app: App, jobs: Sequence[Job]) -> set[int]:
    """Return the ids of running jobs whose worker and trainer are both gone."""
    if control.running(app.home) is not None:
        return set()
    running = (job for job in jobs if job.status is Status.RUNNING)
    return {job.id for job in running if job.child is None or not is_alive(job.child)}


def _slots(app: App) -> int:
    """Return how many jobs the running worker trains at once; 1 if none runs."""
    return int((control.running(app.home) or {}).get("slots", 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wait:
    """Why jobs do not run, and when they will. Equal for jobs that wait for the same."""

    status: Status
    because: str
    first_start: bool  # they have not run yet
    when: str | None  # None if unknown, or if a command is needed
    command: str | None  # the command that lets them run, without job ids

    def text(self, ids: Sequence[int]) -> str:
        """Return the text for the jobs that wait for the same, without their ids."""
        when = f"with {self.command} {id_ranges(ids)}" if self.command is not None else self.when
        verb = ("start" if self.first_start else "resume") + ("s" if len(ids) == 1 else "")
        return f"{self.status}{f', {verb} {when}' if when is not None else ''}: {self.because}"


def resumes(job: Job, queue: QueueState, turn: Turn | None = None, *, now: float | None = None) -> str | None:
    """Return when or with which command a job will run.

    None if it runs, has ended, is next in the queue, or if the time is unknown.
    """
    now = time.time() if now is None else now
    if job.status in _COMMANDS:
        return f"with {_COMMANDS[job.status]} {job.id}"
    if job.status is Status.WAITING:
        due = job.not_before or 0.0
        return fmt.upcoming(due, now) if due > now else "as soon as possible"
    if job.status is Status.QUEUED and queue.paused_at is not None:
        return "with lq resume --queue"
    until = turn.obstacle.until if turn is not None and turn.obstacle is not None else None
    return fmt.upcoming(until, now) if until is not None else None


def waits_of(
    jobs: Sequence[Job], queue: QueueState, turns: Mapping[int, Turn], *, now: float | None = None
) -> dict[Wait, list[int]]:
    """Return why jobs do not run, and the ids of the jobs that wait for the same."""
    waits: dict[Wait, list[int]] = {}
    for job in (job for job in jobs if job.dismissed_at is None):
        turn = turns.get(job.id)
        because = f"{job.reason}: {job.detail}" if job.status not in _SELF_EXPLANATORY and job.detail else None
        if job.status is Status.QUEUED and turn is not None and turn.obstacle is not None:
            because = turn.obstacle.text
        if because is None:
            continue
        command = _COMMANDS.get(job.status)
        wait = Wait(
            status=job.status,
            because=because,
            first_start=job.status is Status.QUEUED and not job.attempts,
            when=resumes(job, queue, turn, now=now) if command is None else None,
            command=command,
        )
        waits.setdefault(wait, []).append(job.id)
    return waits


def waiting_line(job: Job, queue: QueueState, turns: Mapping[int, Turn]) -> str | None:
    """Return one line on why a job does not run; None if its status needs no explanation."""
    return next((f"job {job.id} {wait.text(ids)}" for wait, ids in waits_of([job], queue, turns).items()), None)


def id_ranges(ids: Sequence[int]) -> str:
    """Return ids as they are typed on the command line: 3 5-7."""
    ranges: list[list[int]] = []
    for job_id in sorted(ids):
        if ranges and job_id == ranges[-1][1] + 1:
            ranges[-1][1] = job_id
        else:
            ranges.append([job_id, job_id])
    return " ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
