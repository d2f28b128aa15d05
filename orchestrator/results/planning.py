"""Results of `lq check` and `lq plan`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jobs.estimates.cautions import Caution
from jobs.estimates.dry_run import DryRunFailure
from jobs.estimates.estimate import MemoryParts, Source

Fits = Literal["fits", "tight", "does not fit"]


@dataclass(frozen=True, kw_only=True)
class CheckMemory:
    """Memory of a dry run."""

    peak_bytes: int | None  # highest memory of the dry run
    limit_bytes: int | None  # lq.memory.limit in bytes


@dataclass(frozen=True, kw_only=True)
class CheckSpeed:
    """Speed of a dry run."""

    it_s: float  # iterations per second on the mean batch of the run
    updates: int  # optimizer updates of the dry run
    first_update_s: float  # seconds of the first update, which compiles
    update_s: float  # median seconds of a later update
    padded_tokens: float  # tokens of a measured batch, including padding
    mean_padded_tokens: float  # tokens of the mean batch of the run, including padding


@dataclass(frozen=True, kw_only=True)
class CheckTime:
    """Estimated time of the rest of the run, in seconds."""

    total_s: float  # sum of the parts
    train_s: float  # training
    validation_s: float  # all validations
    checkpoint_s: float  # all checkpoints
    test_s: float  # evaluation of the test set
    start_s: float  # all starts, including compilation
    iterations: int  # iterations left
    validations: int  # validations left
    checkpoints: int  # checkpoints left
    starts: int  # one, or one for each segment


@dataclass(frozen=True, kw_only=True)
class CheckDisk:
    """Disk space of the run."""

    need_bytes: int  # highest estimate of what the run writes
    free_bytes: int
    checkpoint_bytes: int | None  # size of the checkpoint that the dry run wrote and verified; null if it wrote none


@dataclass(frozen=True, kw_only=True)
class CheckData:
    """The data set as the trainer reads it."""

    rows: int  # training rows
    valid_rows: int  # validation rows
    truncated: int  # rows longer than max_seq_length
    unsupervised: int  # rows without a token to learn
    padding_share: float | None  # share of padding in the batches, 0 to 1
    epochs: float  # passes over the training set
    duplicates: int  # validation rows that are also training rows
    near_duplicates: int | None  # validation rows similar to a training row; null if not searched


@dataclass(frozen=True, kw_only=True)
class CheckedJob:
    """The dry run of one job."""

    id: int | None  # null for a file
    name: str
    file: str | None  # null for a queued job
    ok: bool  # the dry run found no failure
    failures: list[DryRunFailure]  # why the job would fail, with a reason code
    warnings: list[Caution]
    notes: list[str]  # notes of `lq submit`, one line each
    memory: CheckMemory
    speed: CheckSpeed | None  # null if the dry run failed earlier
    time: CheckTime | None  # null if the dry run failed earlier
    begins_at: float | None  # estimated start, in unix seconds
    ends_at: float | None  # estimated end, in unix seconds
    due_at: float | None  # its deadline, in unix seconds
    disk: CheckDisk
    data: CheckData | None  # null if the dry run failed earlier


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """The dry runs of all jobs."""

    ok: bool  # no job would fail
    ends_at: float | None  # estimated end of the last job, in unix seconds
    jobs: list[CheckedJob]  # in the order in which they would run


@dataclass(frozen=True, kw_only=True)
class LearnedPart:
    """A supervised part of a row."""

    start: int  # first character, from 0
    end: int  # character after the last
    text: str  # what is learned


@dataclass(frozen=True, kw_only=True)
class CheckedRow:
    """A row of a data file as the model sees it."""

    name: str  # of the job
    file: str  # the data file
    row: int  # number of the row, from 1
    text: str  # text of the row in the chat template
    learned: list[LearnedPart]  # what is learned; empty if nothing is
    tokens: int | None  # null if they cannot be counted on this machine
    learned_tokens: int | None  # null if they cannot be counted on this machine
    cut_at: int | None  # character at which max_seq_length cuts the text; null if it does not
    why: str | None  # why nothing is learned: ends_in_prompt, no_start or cut_off
    note: str | None  # what could not be tried on this machine


@dataclass(frozen=True, kw_only=True)
class CheckedRows:
    """The row of each data set that the files name."""

    rows: list[CheckedRow]


@dataclass(frozen=True, kw_only=True)
class PlanMemory:
    """Estimated memory of a run."""

    low_bytes: int  # lower bound
    expected_bytes: int  # expected value
    high_bytes: int  # upper bound
    source: Source
    because: str  # source of the estimate, one line of text
    parts: MemoryParts


@dataclass(frozen=True, kw_only=True)
class PlanTime:
    """Estimated time left of a run."""

    low_s: float  # lower bound in seconds
    expected_s: float  # seconds
    high_s: float  # upper bound in seconds
    source: Source
    because: str  # source of the estimate, one line of text


@dataclass(frozen=True, kw_only=True)
class PlanRemedy:
    """A change of the settings that lowers the memory."""

    by: Literal["lq", "user"]  # who makes the change: the worker after an out-of-memory failure, or only you
    change: str  # the change as keys and values of a job file
    memory: PlanMemory
    verdict: Fits  # whether it fits
    first: bool  # the first remedy that fits


@dataclass(frozen=True, kw_only=True)
class PlannedJob:
    """A job of the plan."""

    id: int | None  # null for a file
    file: str | None  # null for a queued job
    name: str
    status: str  # status of the job; `file` for a file
    memory: PlanMemory | None  # null if the model is not on this machine
    limit_bytes: int  # lq.memory.limit in bytes
    room_bytes: int  # highest memory before the memory guard stops an attempt
    verdict: Fits | None  # null if the memory is unknown
    time: PlanTime | None  # null if the model has never run here; `lq check` measures it
    start: float | None  # unix seconds; null if unknown
    end: float | None  # unix seconds; null if unknown
    stints: list[tuple[float, float | None]]  # periods of training: start and end in unix seconds; null if unknown
    behind: int | None  # id of the job after which start times are unknown; negative for a file
    deadline: float | None  # unix seconds
    late_s: float | None  # seconds after the deadline; negative if the job ends before it
    remedies: list[PlanRemedy]  # for a job that is tight or does not fit: first those of the worker in its order
    disk_bytes: int | None  # disk space that a file would need; null for a queued job
    notes: list[str]  # one line each


@dataclass(frozen=True, kw_only=True)
class PlanDisk:
    """Disk space of all planned jobs."""

    free_bytes: int
    need_bytes: int  # highest estimate of what the jobs still write
    floor_bytes: int  # space that must stay free


@dataclass(frozen=True, kw_only=True)
class PlanResult:
    """The plan of the queue."""

    now: float  # unix seconds
    recommended_bytes: int  # recommended maximum memory of the device
    recommended_by: str  # source of that value
    queue_paused: bool  # no job starts until `lq resume --queue`
    disk: PlanDisk
    jobs: list[PlannedJob]  # in the order in which they start
