"""What the status view shows: the store at one moment, and what the machine reports. Nothing is rendered here."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jobs.model.job import Incident, Job, Message, ProgressPoint, QueueState
from jobs.model.states import ENDED, Status
from orchestrator.cli import home_access
from orchestrator.cli.views.group import GroupSnapshot, group_snapshot
from orchestrator.cli.views.messages import undelivered
from orchestrator.cli.views.waiting import forecast_of, waiting_turns
from orchestrator.report.stored_verdict import verdict_of
from orchestrator.submission.inbox_files import InboxContents, state_of_inbox
from orchestrator.worker import control
from workers.system import keep_awake, processes

if TYPE_CHECKING:
    from orchestrator.core.app import App
    from orchestrator.planning.queue_forecast import QueueForecast
    from orchestrator.scheduling.eligibility import Turn
    from orchestrator.store.status_queries import BestValidation, RunningAttempt

MOST_POINTS = 160
"""Progress points of a sparkline, one for each character."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineState:
    """What the machine reports; None for what it does not."""

    kept_awake: bool | None  # by the worker; None if no job runs, too
    mains: bool | None
    charge: int | None  # of the battery, in percent
    free_bytes: int | None  # memory that a new process could take
    all_bytes: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobDetails:
    """What the status view shows of a job in addition to the fields of `Job`."""

    best: BestValidation | None = None
    incidents: int = 0
    verdict: str | None = None  # of the report of an ended job
    recent: Sequence[ProgressPoint] = ()  # of a running job, the oldest first
    newest: Incident | None = None  # of a running job
    life: RunningAttempt | None = None  # the present attempt of a running job


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The queue at one moment."""

    now: float  # unix seconds
    home: str
    worker: Mapping[str, Any] | None  # what the running worker wrote about itself
    machine: MachineState
    jobs: Sequence[Job]
    queue: QueueState
    turns: Mapping[int, Turn]
    forecast: QueueForecast
    details: Mapping[int, JobDetails]
    undelivered: Sequence[Message]
    inbox: InboxContents
    group: GroupSnapshot | None = None  # if the snapshot is of one group

    @property
    def pid(self) -> int | None:
        """The worker's process id."""
        return None if self.worker is None else int(self.worker["pid"])


class VerdictCache:
    """The verdicts of reports. Each is read once for as long as its job does not run again."""

    def __init__(self) -> None:
        """Begin empty."""
        self._verdicts: dict[tuple[int, float | None], str | None] = {}

    def of(self, job: Job) -> str | None:
        """Return the verdict on a job; None if it has not ended or has no report."""
        if job.status not in ENDED:
            return None
        key = job.id, job.ended_at
        if self._verdicts.get(key) is None:  # the report may be written later
            self._verdicts[key] = verdict_of(job)
        return self._verdicts[key]


def take_snapshot(
    app: App,
    *,
    every: bool = False,
    group: str | None = None,
    verdicts: VerdictCache | None = None,
    now: float | None = None,
) -> Snapshot:
    """Read the queue, without changing or creating anything.

    Args:
        every: include every job, not only the last 20 that ended.
        group: include only the jobs of this group.
        verdicts: the cache of an earlier snapshot.
        now: unix seconds; None for the present time.

    Raises:
        NoSuchJob: the group does not exist.
    """
    worker = control.running(app.home)
    jobs_of_group = group_snapshot(app, group) if group is not None else None
    jobs = jobs_of_group.jobs if jobs_of_group is not None else home_access.list_jobs(app, every=every)
    now = time.time() if now is None else now
    turns = waiting_turns(app, jobs, now=now)
    return Snapshot(
        now=now,
        home=str(app.home.path),
        worker=worker,
        machine=machine_state(worker, jobs),
        jobs=jobs,
        queue=app.store.queue.state() if home_access.has_store(app) else QueueState(),
        turns=turns,
        forecast=forecast_of(app, jobs, now=now),
        details=job_details(app, jobs, verdicts or VerdictCache()),
        undelivered=undelivered(app),
        inbox=state_of_inbox(app.home.inbox),
        group=jobs_of_group,
    )


def machine_state(worker: Mapping[str, Any] | None, jobs: Sequence[Job]) -> MachineState:
    """Return what the machine reports within a few milliseconds."""
    battery, memory = processes.battery(), processes.memory()
    is_training = any(job.status is Status.RUNNING for job in jobs)
    return MachineState(
        kept_awake=processes.has_child(int(worker["pid"]), keep_awake.TOOL)
        if worker is not None and is_training
        else None,
        mains=None if battery is None else battery[1],
        charge=None if battery is None else round(100 * battery[0]),
        free_bytes=memory[0],
        all_bytes=memory[1],
    )


def job_details(app: App, jobs: Sequence[Job], verdicts: VerdictCache) -> dict[int, JobDetails]:
    """Return the details of each job, by id."""
    if not jobs:
        return {}
    attempted = [job.id for job in jobs if job.attempts]
    queries = app.store.status
    best, counts = queries.best_validations(attempted), queries.incident_counts(attempted)
    return {
        job.id: JobDetails(
            best=best.get(job.id),
            incidents=counts.get(job.id, 0),
            verdict=verdicts.of(job),
            recent=queries.recent_points(job.id, MOST_POINTS) if (running := job.status is Status.RUNNING) else (),
            newest=queries.newest_incident(job.id) if running and job.id in counts else None,
            life=queries.running_attempt(job.id) if running else None,
        )
        for job in jobs
    }
