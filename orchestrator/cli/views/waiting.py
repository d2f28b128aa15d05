"""Why a job does not run now, and when it will, in words: for every verb that shows jobs."""

from __future__ import annotations

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


def goes_on(job: Job, queue: QueueState, turn: Turn | None = None) -> str | None:
    """Say when a job that does not run goes on; None where it runs, has ended, is simply the next, or nobody knows.

    Args:
        job: the job.
        queue: whether it hands out jobs.
        turn: what keeps the job from training.
    """
    if job.status is Status.WAITING:
        due = job.not_before or 0.0
        return fmt.upcoming(due) if due > time.time() else "as soon as it can"
    if job.status is Status.HELD:
        return f"with lq release {job.id}"
    if job.status is Status.PAUSED:
        return f"with lq resume {job.id}"
    if job.status is Status.QUEUED and queue.paused_at is not None:
        return "with lq resume --queue"
    until = turn.obstacle.until if turn is not None and turn.obstacle is not None else None
    return fmt.upcoming(until) if until is not None else None


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


def reasons(jobs: Sequence[Job], queue: QueueState, turns: Mapping[int, Turn]) -> list[tuple[Status, str]]:
    """Say why jobs do not run, those of which the same is true together: the status, and a line."""
    alike: dict[tuple[str, ...], list[int]] = {}
    lines: dict[tuple[str, ...], tuple[Status, str]] = {}
    for job in jobs:
        text = waits(job, queue, turns.get(job.id))
        if text is None:
            continue
        said, _, because = text.partition(": ")
        key = (said.removeprefix(f"job {job.id} ").removesuffix(f" {job.id}"), because)
        alike.setdefault(key, []).append(job.id)
        lines[key] = (job.status, text)
    return [(lines[key][0], _together(key, ids, lines[key][1])) for key, ids in alike.items()]


def _together(key: tuple[str, ...], ids: Sequence[int], of_last: str) -> str:
    if len(ids) == 1:
        return of_last
    said, because = key
    said = said.replace(", goes on", ", go on", 1).replace(", starts", ", start", 1)
    names = " " + spans(ids) if of_last.partition(": ")[0].endswith(f" {ids[-1]}") else ""
    return f"jobs {spans(ids)} {said}{names}: {because}"


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
