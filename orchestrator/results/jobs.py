"""Results of the verbs that queue, show and change jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.model.job import Attempt, CheckpointRecord, Incident, Message, Validation
from jobs.model.states import Status
from jobs.scheduling.obstacles import Obstacle


@dataclass(frozen=True, kw_only=True)
class JobMemory:
    """Memory of a running job, as last reported."""

    footprint_bytes: int | None  # of the process, as the operating system counts it
    peak_bytes: int | None  # highest allocation of MLX
    limit_bytes: int | None  # lq.memory.limit in bytes


@dataclass(frozen=True, kw_only=True)
class NewestIncident:
    """The newest incident of a running job."""

    time: float
    code: str  # incident code
    text: str


@dataclass(frozen=True, kw_only=True)
class JobSummary:
    """A job and its state."""

    id: int
    name: str
    status: Status
    reason: str | None  # reason code of the state; null if the state needs none
    iteration: int  # completed iterations, as last reported
    iters: int  # iterations to train
    train_loss: float | None  # last reported training loss, in nats per token; per row for preferences
    val_loss: float | None  # last validation loss, in nats per token; per row for preferences
    it_s: float | None  # last reported speed, in iterations per second
    eta_seconds: float | None  # seconds left of a running job; null if unknown
    attempts: int  # attempts so far
    priority: int  # jobs with a higher priority start first
    group: str | None  # its group
    kept_by: Obstacle | None  # why a queued job cannot start now
    starts_at: float | None  # estimated start, in unix seconds; null if unknown
    ends_at: float | None  # estimated end, in unix seconds; null if unknown
    not_before: float | None  # earliest start of a waiting job, in unix seconds
    pid: int | None  # process id of the trainer; null if none runs
    job_dir: str  # folder of the job, absolute
    verdict: str | None  # verdict of its report; null if it has none
    best_val_loss: float | None  # lowest validation loss, in nats per token; per row for preferences
    best_val_iteration: int | None  # iteration of the lowest validation loss
    phase: str | None  # current phase of the trainer of a running job
    memory: JobMemory | None  # null unless the job runs
    incidents: int  # number of incidents so far
    newest_incident: NewestIncident | None  # null unless the job runs
    started_at: float | None  # start of the first attempt, in unix seconds
    ended_at: float | None  # unix seconds; null until the job has ended


@dataclass(frozen=True, kw_only=True)
class ListedJob(JobSummary):
    """A job in the list of `lq status`."""

    settings: Mapping[str, str] | None  # with --group: settings that differ within the group, by key; else null
    best: bool | None  # with --group: has the lowest validation loss of the succeeded jobs; else null


@dataclass(frozen=True, kw_only=True)
class ShownJob(JobSummary):
    """A job with its full details."""

    detail: str | None  # reason of the state as one line of text
    submitted_at: float
    cleaned_at: float | None  # when its checkpoints and logs were deleted, in unix seconds
    dismissed_at: float | None  # when it was dismissed, in unix seconds


@dataclass(frozen=True, kw_only=True)
class WorkerState:
    """The worker process."""

    alive: bool  # a worker runs
    pid: int | None  # its process id; null if none runs
    started_at: float | None  # unix seconds; null if none runs


@dataclass(frozen=True, kw_only=True)
class MachineReadings:
    """Readings of the machine; null if a reading is not available."""

    kept_awake: bool | None  # the worker prevents sleep; null if no job runs
    mains: bool | None  # on mains power
    battery_percent: int | None  # battery charge
    memory_free_bytes: int | None  # memory available to a new process
    memory_bytes: int | None  # installed memory


@dataclass(frozen=True, kw_only=True)
class QueueSummary:
    """The queue as a whole."""

    paused: bool  # no job starts until `lq resume --queue`
    because: str | None


@dataclass(frozen=True, kw_only=True)
class UndeliveredCounts:
    """Number of messages that a service has not received."""

    waiting: int  # will be retried
    gave_up: int  # given up within the last week


@dataclass(frozen=True, kw_only=True)
class InboxSummary:
    """The inbox folder."""

    waiting: int  # files not submitted yet
    because: str | None  # why no file is submitted; null if it works


@dataclass(frozen=True, kw_only=True)
class StatusResult:
    """Live jobs and the jobs that ended last."""

    worker: WorkerState
    machine: MachineReadings
    queue: QueueSummary
    messages: UndeliveredCounts
    inbox: InboxSummary
    settings: str | None  # what is wrong with settings.yaml; null if it is valid
    jobs: list[ListedJob]  # by id; with --group the live jobs first, then the others by best validation loss


@dataclass(frozen=True, kw_only=True)
class ShowResult:
    """Everything about one job."""

    job: ShownJob
    spec: Mapping[str, Any]  # the job file with every default filled in; see its own schema
    attempts: list[Attempt]
    validations: list[Validation]
    tests: list[Validation]  # evaluations of the test set
    checkpoints: list[CheckpointRecord]  # every reported checkpoint, including deleted ones
    incidents: list[Incident]
    messages: list[Message]


@dataclass(frozen=True, kw_only=True)
class SubmittedJob:
    """A job that was queued, or with --dry-run would be."""

    id: int | None  # null with --dry-run
    name: str
    group: str | None  # the group that a matrix created
    settings: Mapping[str, Any]  # settings from the matrix, by key
    status: Status | None  # null with --dry-run
    job_dir: str | None  # its folder, absolute; null with --dry-run


@dataclass(frozen=True, kw_only=True)
class SubmitResult:
    """The queued jobs."""

    dry_run: bool  # nothing was queued
    jobs: list[SubmittedJob]  # in the order of the files


@dataclass(frozen=True, kw_only=True)
class ChangedJob:
    """A job after the command."""

    id: int
    name: str
    status: Status  # a running job that was asked to stop may still be writing its checkpoint


@dataclass(frozen=True, kw_only=True)
class ChangeResult:
    """The jobs after the command."""

    jobs: list[ChangedJob]  # in the order they were changed


@dataclass(frozen=True, kw_only=True)
class PauseResult(ChangeResult):
    """The jobs and the queue after the command."""

    queue: QueueSummary


@dataclass(frozen=True, kw_only=True)
class WaitedJob(ChangedJob):
    """A job that `lq wait` waited for."""

    code: int | None  # exit code for its end; null if it has not ended


@dataclass(frozen=True, kw_only=True)
class WaitResult:
    """Result of `lq wait`."""

    code: int  # exit code of the command
    jobs: list[WaitedJob]
