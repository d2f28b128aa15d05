"""The records of the store as values: a Job, its Attempts, and what was seen on the way. Frozen, plain."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jobs.model.states import Status


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessIdentity:
    """A process that cannot be mistaken for another one."""

    pid: int
    create_time: float  # unix seconds, as the operating system gives it
    boot_id: str  # of the machine's present life


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What the user asked for, and where it stands."""

    id: int
    name: str
    status: Status
    reason: str | None  # a Reason code; set where the status has one
    detail: str | None  # one line for a person
    priority: int
    iters: int  # iterations asked for
    job_dir: str  # absolute
    submitted_at: float  # unix seconds, as all times here
    started_at: float | None
    ended_at: float | None
    not_before: float | None  # earliest start of a waiting job
    stop_request: str | None  # cancel, pause or worker_stop, asked of the running job
    owner: ProcessIdentity | None  # the worker that holds the lease
    iteration: int  # completed iterations, as last reported
    train_loss: float | None  # last report
    val_loss: float | None  # last validation
    it_s: float | None  # iterations per second, last report
    attempts: int  # attempts so far
    child: ProcessIdentity | None  # of the attempt that has not ended, else None
    eta_seconds: float | None  # computed from the last report; None where unknown
    cleaned_at: float | None = None  # since then its checkpoints and logs are gone
    group_name: str | None = None  # of the sweep it belongs to
    place: float | None = None  # among jobs of its priority, where it was moved; else its id counts

    @property
    def turn(self) -> tuple[int, float]:
        """What to sort waiting jobs by: highest priority first, then as submitted or moved."""
        return -self.priority, self.place if self.place is not None else float(self.id)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attempt:
    """One life of one child process."""

    id: int
    job_id: int
    number: int  # from 1
    child: ProcessIdentity | None  # None until it is known
    started_at: float
    ended_at: float | None
    first_iteration: int | None  # completed iterations when it began; None until it said so
    last_iteration: int | None  # completed iterations as last reported
    resumed_from: str | None  # name of the checkpoint, None for a fresh start
    quality: str | None  # a Quality code
    exit_code: int | None
    signal: int | None
    outcome: str | None  # an Outcome code, None while it lives
    reason: str | None  # a Reason code
    detail: str | None
    phase: str | None  # what it was doing, as far as it said
    stage: int | None  # index of the run plan's stage it began on; None where it did not say
    stderr_tail: str | None  # last lines of its own output, where it died
    settled: bool  # a Decision about its end was carried out


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgressPoint:
    """One progress report: the mean over `steps_per_report` iterations."""

    attempt: int
    iteration: int  # the last one it covers
    time: float
    train_loss: float
    learning_rate: float | None
    it_s: float | None
    tok_s: float | None
    tokens: int | None  # trained tokens since the beginning of the job
    active_bytes: int | None
    cache_bytes: int | None
    peak_bytes: int | None
    footprint_bytes: int | None
    grad_norm: float | None = None  # global, of the last update of the line it was told in; before clipping
    skipped: int | None = None  # its iterations whose update was not applied; None where that was not counted
    swap_bytes: int | None = None  # of the machine
    limit_bytes: int | None = None  # what `lq.memory.limit` comes to


@dataclasses.dataclass(frozen=True, kw_only=True)
class Validation:
    """One measurement of the validation set (or, where kind is `test`, of the test set)."""

    attempt: int
    kind: str  # validation, test, or snapshot: a validation that was asked for between two due ones
    iteration: int
    time: float
    loss: float  # nats per token
    standard_error: float | None  # by row
    examples: int
    seconds: float
    row_losses: tuple[float, ...] | None  # nats per token of each row, in file order


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointRecord:
    """A checkpoint the child reported."""

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
    """What is known of the memory a configuration takes on this machine."""

    fits: bool
    peak_bytes: int | None  # the most that was seen
    job_id: int  # the job that showed it
    it_s: float | None = None  # iterations per second, the median of its reports
    start_s: float | None = None  # from the trainer's start to its first iteration, in seconds
    validation_s: float | None = None  # one validation, in seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dependency:
    """A job that must have ended before another one may start."""

    job_id: int  # the one that waits
    on: int  # the one it waits for
    any_end: bool  # however that ended; else it must have succeeded
    status: Status  # of the one it waits for


@dataclasses.dataclass(frozen=True, kw_only=True)
class QueueState:
    """Whether the queue hands out jobs."""

    paused_at: float | None  # unix seconds; None where it does
    because: str | None  # one line for a person


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServiceResult:
    """What happened with one notification service; the service is named, its URL never stored."""

    service: str  # its name in settings.yaml, or its kind and place: "json 1"
    delivered: bool
    tries: int
    last_result: str  # delivered, failed, timed out, told in the digest, no longer configured, ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Message:
    """A row of the outbox: written with its cause, delivered later, at least once."""

    id: int
    job_id: int | None
    event: str  # jobs.spec.Event, or digest
    key: str  # no two rows have the same
    title: str
    body: str
    attachment: str | None  # absolute path of a file to send along where it exists
    tags: tuple[str, ...] | None
    created_at: float
    next_try_at: float | None  # None once settled
    settled: str | None  # delivered, gave_up, folded (another message tells it), nobody
    services: tuple[ServiceResult, ...]
    due_at: float | None = None  # when it is sent first; None in rows of older versions: at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class NewMessage:
    """A message to put into the outbox; the store gives it its id and its times."""

    job_id: int | None
    event: str  # jobs.spec.Event, or digest
    key: str  # a second message with the same key is dropped
    title: str
    body: str
    attachment: str | None = None  # absolute path
    tags: tuple[str, ...] | None = None
