"""What a glance at the night sees: the store at one moment, and what the machine says. Nothing is rendered."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jobs.model.job import Incident, Job, Message, ProgressPoint, QueueState
from jobs.model.states import ENDED, Status
from orchestrator.cli import home_access
from orchestrator.cli.views.group import Group
from orchestrator.cli.views.messages import undelivered
from orchestrator.cli.views.waiting import forecast_of, waiting_turns
from orchestrator.report.stored_verdict import verdict_of
from orchestrator.submission.inbox_files import InboxState, state_of_inbox
from orchestrator.worker import control
from workers.system import awake, processes

if TYPE_CHECKING:
    from orchestrator.core.app import App
    from orchestrator.planning.queue_forecast import QueueForecast
    from orchestrator.scheduling.eligibility import Turn
    from orchestrator.store.status_queries import Best, Life

MOST_POINTS = 160
"""Reports that a curve shows at most: one a character."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MachineState:
    """What the machine says of itself; None where it does not."""

    kept_awake: bool | None  # by the worker; None where no job runs, too
    mains: bool | None
    charge: int | None  # of the battery, in percent; None where there is none
    free_bytes: int | None  # memory that a new process could take
    all_bytes: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobDetails:
    """What is seen of a job beside what a Job says."""

    best: Best | None = None
    incidents: int = 0
    verdict: str | None = None  # of its report, where it has ended
    recent: Sequence[ProgressPoint] = ()  # last reports of a running job, the oldest first
    newest: Incident | None = None  # of a running job
    life: Life | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The night at one moment."""

    now: float  # unix seconds
    home: str
    worker: Mapping[str, Any] | None  # what the living one says of itself
    machine: MachineState
    jobs: Sequence[Job]
    queue: QueueState
    turns: Mapping[int, Turn]
    forecast: QueueForecast
    details: Mapping[int, JobDetails]
    undelivered: Sequence[Message]  # that services did not get
    inbox: InboxState
    group: Group | None = None  # where only that is looked at

    @property
    def pid(self) -> int | None:
        """Of the worker."""
        return None if self.worker is None else int(self.worker["pid"])


class VerdictCache:
    """The verdicts of reports, each read once for as long as its job does not run again."""

    def __init__(self) -> None:
        """Nothing is read yet."""
        self._known: dict[tuple[int, float | None], str | None] = {}

    def of(self, job: Job) -> str | None:
        """Return the verdict on a job; None where it has not ended, or has no report."""
        if job.status not in ENDED:
            return None
        key = job.id, job.ended_at
        if self._known.get(key) is None:  # a report may yet be written
            self._known[key] = verdict_of(job)
        return self._known[key]


def take_snapshot(
    app: App, *, every: bool = False, group: str | None = None, verdicts: VerdictCache | None = None
) -> Snapshot:
    """Look at the night; makes nothing, and changes nothing.

    Args:
        app: where it is.
        every: every job, not only the last 20 that ended.
        group: only the jobs of this group.
        verdicts: those read before.

    Raises:
        NoSuchJob: there is no such group.
    """
    worker = control.running(app.home)
    of_group = Group(app, group) if group is not None else None
    jobs = of_group.jobs if of_group is not None else home_access.list_jobs(app, every=every)
    turns = waiting_turns(app, jobs)
    return Snapshot(
        now=time.time(),
        home=str(app.home.path),
        worker=worker,
        machine=machine_state(worker, jobs),
        jobs=jobs,
        queue=app.store.queue.state() if home_access.has_store(app) else QueueState(paused_at=None, because=None),
        turns=turns,
        forecast=forecast_of(app, jobs),
        details=job_details(app, jobs, verdicts or VerdictCache()),
        undelivered=undelivered(app),
        inbox=state_of_inbox(app.home.inbox),
        group=of_group,
    )


def machine_state(worker: Mapping[str, Any] | None, jobs: Sequence[Job]) -> MachineState:
    """Ask the machine, as far as that is done in an instant."""
    battery, memory = processes.battery(), processes.memory()
    runs = any(job.status is Status.RUNNING for job in jobs)
    return MachineState(
        kept_awake=processes.has_child(int(worker["pid"]), awake.TOOL) if worker is not None and runs else None,
        mains=None if battery is None else battery[1],
        charge=None if battery is None else round(100 * battery[0]),
        free_bytes=memory[0],
        all_bytes=memory[1],
    )


def job_details(app: App, jobs: Sequence[Job], verdicts: VerdictCache) -> dict[int, JobDetails]:
    """Return what is seen of each job, by id."""
    if not jobs:
        return {}
    begun = [job.id for job in jobs if job.attempts]
    best, counts = app.store.status.best_validations(begun), app.store.status.incident_counts(begun)
    return {
        job.id: JobDetails(
            best=best.get(job.id),
            incidents=counts.get(job.id, 0),
            verdict=verdicts.of(job),
            recent=app.store.status.recent_points(job.id, MOST_POINTS) if running else (),
            newest=app.store.status.newest_incident(job.id) if running and job.id in counts else None,
            life=app.store.status.live_attempt(job.id) if running else None,
        )
        for job in jobs
        for running in (job.status is Status.RUNNING,)
    }
