"""What the status view shows: the store at one moment, and what the machine reports. Nothing is rendered here."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from jobs.model.errors import ConfigInvalid
from jobs.model.job import Incident, Job, Message, ProgressPoint, QueueState
from jobs.model.states import ENDED, Status
from orchestrator.cli import home_access
from orchestrator.cli.views.waiting import forecast_of, interrupted, waiting_turns
from orchestrator.report.analysis.settings_diff import differing, validated_alike
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

WEEK_S = 7 * 24 * 3600.0
"""Messages that lq gave up are listed this long."""


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
class GroupSnapshot:
    """The jobs of a group at one moment: live jobs first, then ended jobs by their best validation."""

    name: str
    jobs: Sequence[Job]
    losses: Mapping[int, float]  # the best validation, by job id
    settings: Sequence[tuple[str, tuple[str, ...]]]  # keys that differ, and their value in each job
    is_comparable: bool  # all jobs validate on the same tokens

    @property
    def best(self) -> int | None:
        """The id of the succeeded job with the lowest validation loss; None if the losses cannot be compared."""
        ranked = [job.id for job in self.jobs if job.status is Status.SUCCEEDED and job.id in self.losses]
        lowest = min(ranked, key=lambda job_id: (self.losses[job_id], job_id), default=None)
        return lowest if self.is_comparable else None


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
    interrupted: Collection[int]  # ids of running jobs whose worker and trainer are both gone
    forecast: QueueForecast
    details: Mapping[int, JobDetails]
    undelivered: Sequence[Message]
    inbox: InboxContents
    settings_fault: str | None = None  # what is wrong with settings.yaml, with file and line
    group: GroupSnapshot | None = None  # if the snapshot is of one group

    @property
    def pid(self) -> int | None:
        """The worker's process id."""
        return None if self.worker is None else int(self.worker["pid"])

    @property
    def still_tried(self) -> int:
        """How many undelivered messages lq still tries to send."""
        return sum(message.settled is None for message in self.undelivered)


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
    """
    worker = control.running(app.home)
    jobs_of_group = group_snapshot(app, group) if group is not None else None
    jobs = jobs_of_group.jobs if jobs_of_group is not None else home_access.list_jobs(app, every=every)
    now = time.time() if now is None else now
    return Snapshot(
        now=now,
        home=str(app.home.path),
        worker=worker,
        machine=machine_state(worker, jobs),
        jobs=jobs,
        queue=app.store.queue.state() if home_access.has_store(app) else QueueState(),
        turns=waiting_turns(app, jobs, now=now),
        interrupted=interrupted(app, jobs),
        forecast=forecast_of(app, jobs, now=now),
        details=job_details(app, jobs, verdicts or VerdictCache()),
        undelivered=undelivered(app),
        inbox=state_of_inbox(app.home.inbox),
        settings_fault=settings_fault(app),
        group=jobs_of_group,
    )


def settings_fault(app: App) -> str | None:
    """Return what is wrong with settings.yaml.

    To read it takes as long as the rest of `lq status`, so a valid file is not read again until it changes.
    """
    file, marker = app.home.settings, app.home.settings.with_name(".settings.valid")
    with suppress(OSError):
        found = file.stat()
        stamp = f"{found.st_mtime_ns} {found.st_size} {found.st_ino} {found.st_mode}"
        if marker.exists() and marker.read_text() == stamp:
            return None
        try:
            app.settings()
        except ConfigInvalid as error:
            return str(error)
        marker.write_text(stamp)
    return None


def machine_state(worker: Mapping[str, Any] | None, jobs: Sequence[Job]) -> MachineState:
    """Return what the machine reports within a few milliseconds."""
    battery, memory = processes.battery(), processes.memory()
    pid = int(worker["pid"]) if worker is not None and any(job.status is Status.RUNNING for job in jobs) else None
    return MachineState(
        kept_awake=processes.has_child(pid, keep_awake.TOOL) if pid is not None else None,
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


def group_snapshot(app: App, name: str) -> GroupSnapshot:
    """Return a group as it is now."""
    jobs = home_access.jobs_of_group(app, name)
    losses = app.store.groups.best_losses(name)
    jobs.sort(key=lambda job: _rank(job, losses.get(job.id)))
    by_id = app.store.groups.specs(name)
    specs = [json.loads(by_id[job.id]) for job in jobs]
    return GroupSnapshot(
        name=name, jobs=jobs, losses=losses, settings=differing(specs), is_comparable=validated_alike(specs)
    )


def _rank(job: Job, loss: float | None) -> tuple[bool, int, float, int]:
    if job.status not in ENDED:
        return (False, job.status is not Status.RUNNING, 0.0, job.id)
    return (True, loss is None, loss or 0.0, job.id)


def undelivered(app: App) -> list[Message]:
    """Return the messages that a service has refused so far, and those given up within a week."""
    messages = app.store.outbox.undelivered(time.time() - WEEK_S) if home_access.has_store(app) else []
    return [one for one in messages if one.settled is not None or any(service.tries for service in one.services)]
