"""When the jobs of the queue will start and end, by what earlier runs have shown. Light: `lq status` asks.

`lq plan` knows more: it also estimates configurations that never ran, and reads the model and the data for that.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import TYPE_CHECKING, Any

from jobs.estimates.estimate import TimeEstimate
from jobs.model.job import Job
from jobs.model.states import Status
from jobs.scheduling.constraints import constraints_of
from jobs.scheduling.timeline import JobTimes, PendingJob, timeline
from orchestrator.estimation.history import RunHistory

if TYPE_CHECKING:
    from orchestrator.store.store import Store


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueueForecast:
    """The running and the waiting jobs, by id, as far as they are known."""

    time_left: Mapping[int, TimeEstimate] = dataclasses.field(default_factory=dict)
    times: Mapping[int, JobTimes] = dataclasses.field(default_factory=dict)


def forecast(store: Store, *, now: float, slots: int, zone: tzinfo | None = None) -> QueueForecast:
    """Forecast the running jobs and those that wait for their turn; `zone` None is the machine's own time zone."""
    history, awaited = RunHistory(store), store.dependencies.awaited()
    jobs = [(job, store.jobs.spec_json(job.id)) for job in store.jobs.running()]
    jobs += [(waiting.job, waiting.spec_json) for waiting in store.queue.waiting()]
    time_left: dict[int, TimeEstimate] = {}
    pending = []
    for job, text in jobs:
        spec = json.loads(text)
        left = history.time_left(job, spec)
        if left is not None:
            time_left[job.id] = left
        pending.append(pending_job(job, spec, left, now=now, zone=zone, after=awaited.get(job.id, ())))
    times = timeline(pending, now=now, slots=slots, zone=zone)
    return QueueForecast(time_left=time_left, times={job_times.id: job_times for job_times in times})


def pending_job(
    job: Job | int,
    spec: Mapping[str, Any],
    left: TimeEstimate | None,
    *,
    now: float,
    zone: tzinfo | None = None,
    after: Sequence[int] = (),
    held: bool = False,
) -> PendingJob:
    """Return a job as the simulation of the queue takes it; one that is not submitted yet has only a number."""
    submitted = job if isinstance(job, Job) else None
    constraints = constraints_of(spec)
    return PendingJob(
        id=job.id if isinstance(job, Job) else job,
        seconds=left.expected_s if left is not None else None,
        running=submitted is not None and submitted.status is Status.RUNNING,
        held=held,
        not_before=submitted.not_before if submitted is not None and submitted.status is Status.WAITING else None,
        window=constraints.window,
        after=tuple(after),
        strict=constraints.strict,
        deadline=constraints.due(submitted.submitted_at if submitted is not None else now, zone),
    )
