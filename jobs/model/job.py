"""The records of the store as frozen values: jobs, attempts, and what the trainer reported during them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.model.events import MeasuredRewards
from jobs.model.job_dir import JobDir
from jobs.model.states import Status


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessIdentity:
    """What identifies a process even after its pid is reused."""

    pid: int
    create_time: float  # unix seconds, as the operating system reports it
    boot_id: str  # changes at every boot of the machine


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """A job and its current state."""

    id: int
    name: str
    status: Status
    reason: str | None  # a Reason code; None if the status has none
    detail: str | None  # one line for the user
    priority: int
    iters: int  # iterations of the whole run
    job_dir: str  # absolute
    submitted_at: float  # unix seconds, like all times here
    started_at: float | None
    ended_at: float | None
    not_before: float | None  # earliest start of a waiting job
    stop_request: str | None  # cancel, pause or worker_stop, requested while the job runs
    owner: ProcessIdentity | None  # the worker that holds the lease
    iteration: int  # completed iterations at the last report
    train_loss: float | None  # last report
    val_loss: float | None  # last validation
    it_s: float | None  # iterations per second, last report
    attempts: int  # attempts so far
    child: ProcessIdentity | None  # the trainer of the attempt that has not ended
    cleaned_at: float | None = None  # when `lq clean` deleted its checkpoints and logs
    dismissed_at: float | None = None  # when `lq dismiss` took it off the status view
    group_name: str | None = None
    queue_position: float | None = None  # among jobs of its priority, after `lq move`; None: its id is the position

    @property
    def dir(self) -> JobDir:
        """The files of the job."""
        return JobDir(Path(self.job_dir))

    @property
    def turn(self) -> tuple[int, float]:
        """Sort key of the queue: highest priority first, then in the order of submission or `lq move`."""
        return -self.priority, self.queue_position if self.queue_position is not None else float(self.id)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attempt:
    """One trainer process of a job."""

    id: int
    job_id: int
    number: int  # from 1
    child: ProcessIdentity | None  # None until the process exists
    started_at: float
    ended_at: float | None
    first_iteration: int | None  # completed iterations at its start; None until it is reported
    last_iteration: int | None  # completed iterations at the last report
    resumed_from: str | None  # name of the checkpoint; None for a fresh start
    quality: str | None  # a Quality code
    exit_code: int | None
    signal: int | None
    outcome: str | None  # an Outcome code; None while it runs
    reason: str | None  # a Reason code
    detail: str | None
    phase: str | None  # its last reported phase
    stage: int | None  # index of the stage of the run plan it began on; None if not reported
    stderr_tail: str | None  # last lines of its output, if it crashed
    settled: bool  # the Decision about its end has been carried out


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgressPoint:
    """One progress report: the mean over `steps_per_report` iterations."""

    attempt: int
    iteration: int  # the last one that it covers
    time: float
    train_loss: float
    learning_rate: float | None
    it_s: float | None
    tok_s: float | None
    tokens: int | None  # trained tokens since the start of the job
    active_bytes: int | None
    cache_bytes: int | None
    peak_bytes: int | None
    footprint_bytes: int | None
    grad_norm: float | None = None  # global norm of the last update in the report, before clipping
    skipped: int | None = None  # iterations whose update was not applied; None if not counted
    swap_bytes: int | None = None  # swap in use on the machine
    limit_bytes: int | None = None  # `lq.memory.limit` in bytes
    chosen_reward: float | None = None  # mean reward of the chosen answers; None without a preference objective
    rejected_reward: float | None = None  # mean reward of the rejected answers
    accuracy: float | None = None  # share of rows whose rewards agree with the preference, 0 to 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Validation:
    """One measurement of the validation set, or of the test set if the kind is `test`."""

    attempt: int
    kind: str  # validation, test, or snapshot: a validation on request, between two regular ones
    iteration: int
    time: float
    loss: float  # nats per token
    standard_error: float | None  # by row
    examples: int  # number of rows
    seconds: float
    row_losses: tuple[float, ...] | None  # nats per token, one for each row in file order
    rewards: MeasuredRewards | None = None  # of a preference objective, whose losses are nats per row


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointRecord:
    """A checkpoint that the trainer reported."""

    attempt: int
    iteration: int
    time: float
    path: str  # relative to the job's folder
    size_bytes: int
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Incident:
    """An event that the report must mention, as fields. `orchestrator.formatting.incidents` makes its text."""

    job_id: int
    attempt: int | None
    time: float
    code: str  # a Reason code, the code of a warning, or slept, deadline, ...
    text: str  # what was observed, in one line; not what happened (code) or what lq did (evidence)
    evidence: Mapping[str, Any]  # the numbers that the rule used; `iteration`; `action`: what lq did, in words


def crash_evidence(attempt: Attempt) -> dict[str, Any]:
    """Return what a crashed attempt adds to the evidence of its incident."""
    reached = attempt.last_iteration if attempt.last_iteration is not None else attempt.first_iteration
    return {"iteration": reached, "exit_code": attempt.exit_code, "phase": attempt.phase}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
    """What an earlier job measured about the memory and speed of a configuration on this machine."""

    fits: bool
    peak_bytes: int | None
    job_id: int  # the job that was measured
    it_s: float | None = None  # iterations per second, median of the reports
    start_s: float | None = None  # seconds from the start of the trainer to its first iteration
    validation_s: float | None = None  # seconds of one validation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dependency:
    """A job that must end before another job can start."""

    job_id: int  # the job that waits
    on: int  # the job that it waits for
    any_end: bool  # True: any end will do; False: that job must succeed
    status: Status  # of the job that it waits for


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueueState:
    """Whether the queue is paused."""

    paused_at: float | None = None  # unix seconds; None if it is not paused
    because: str | None = None  # one line for the user
    cause: str | None = None  # the check of lq doctor whose success resumes it; None if only the user does

    @property
    def text(self) -> str:
        """Why it is paused and what resumes it."""
        alone = f"resumes when the check {self.cause} of lq doctor passes, or with" if self.cause else "resume it:"
        return f"{self.because}; {alone} lq resume --queue"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceResult:
    """The delivery of one message to one notification service. The store never contains the service's URL."""

    service: str  # its name in settings.yaml, or its kind and position: "json 1"
    delivered: bool
    tries: int  # number of tries
    last_result: str  # delivered, failed, timed out, included in the digest, no longer configured, ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Message:
    """A row of the outbox: written in the transaction of its cause, delivered later, at least once."""

    id: int
    job_id: int | None
    event: str  # a NotifyEvent, or digest
    key: str  # unique
    title: str  # first line of the message
    body: str  # text of the message
    attachment: str | None  # absolute path of a file to attach, if it exists
    tags: tuple[str, ...] | None  # tags of the services that receive it; None for all services
    created_at: float  # unix seconds
    next_try_at: float | None  # None once settled
    settled: str | None  # delivered, gave_up, folded (included in another message), nobody (no service)
    services: tuple[ServiceResult, ...]
    due_at: float | None = None  # when it is first sent; None: immediately


@dataclasses.dataclass(frozen=True, kw_only=True)
class NewMessage:
    """A message for the outbox; the store adds its id and its times."""

    job_id: int | None
    event: str  # a NotifyEvent, or digest
    key: str  # the store drops a second message with the same key
    title: str
    body: str
    attachment: str | None = None  # absolute path
    tags: tuple[str, ...] | None = None
