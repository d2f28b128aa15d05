"""What each verb prints with --json, as types. A comment beside a field is its description in the schema.

What is a dataclass elsewhere is named here and not written a second time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from jobs.model.job import Attempt, CheckpointRecord, Incident, Message, Validation
from jobs.model.states import Status
from jobs.policies.verdict import Difference
from jobs.scheduling.obstacles import Obstacle
from orchestrator.doctor.check import Check
from orchestrator.report.facts import ValidationFacts
from orchestrator.service.install import ServiceState


class Answer(TypedDict):
    """What every verb says."""

    schema: Literal[1]


# --- jobs ---


class Memory(TypedDict):
    """What a running job takes, as last told."""

    footprint_bytes: int | None  # of the process, as the system counts it
    peak_bytes: int | None  # the most that MLX had allocated
    limit_bytes: int | None  # lq.memory.limit


class Happening(TypedDict):
    """The newest incident of a running job."""

    time: float  # unix seconds
    code: str  # what it is
    text: str  # one line for a person


class Job(TypedDict):
    """A job, and where it stands."""

    id: int
    name: str
    status: Status
    reason: str | None  # why it is in this state, a reason code; null where the state says it all
    iteration: int  # completed iterations, as last reported
    iters: int  # iterations asked for
    train_loss: float | None  # of the last report, in nats per token
    val_loss: float | None  # of the last validation, in nats per token
    it_s: float | None  # iterations per second, in the last report
    eta_seconds: float | None  # seconds that a running job has left; null if unknown
    attempts: int  # trainers so far
    priority: int  # higher runs first
    group: str | None  # the group it belongs to
    kept_by: Obstacle | None  # what keeps a queued job from training now
    starts_at: float | None  # when it will start, in unix seconds, as far as runs of its configuration tell
    ends_at: float | None  # when it will be done, in unix seconds, as far as that is known
    not_before: float | None  # earliest start of a job that waits, in unix seconds
    pid: int | None  # of the living trainer
    job_dir: str  # its folder, absolute
    verdict: str | None  # of its report; null where it has none
    best_val_loss: float | None  # its lowest validation, in nats per token
    best_val_iteration: int | None  # where that was measured
    phase: str | None  # what the trainer of a running job does
    memory: Memory | None  # of a running job
    incidents: int  # so far
    newest_incident: Happening | None  # of a running job
    started_at: float | None  # first attempt, in unix seconds
    ended_at: float | None  # unix seconds; null while it lives


class ListedJob(Job):
    """A job in a list; the last two fields with --group only."""

    settings: NotRequired[Mapping[str, str]]  # with --group: those that differ in the group, by key
    best: NotRequired[bool]  # with --group: whether it has the lowest validation of those that succeeded


class ShownJob(Job):
    """A job, whole."""

    detail: str | None  # why it is in this state, one line for a person
    submitted_at: float  # unix seconds
    cleaned_at: float | None  # since when its checkpoints and logs are gone, in unix seconds


class Worker(TypedDict):
    """Who looks after the jobs."""

    alive: bool  # whether one runs
    pid: int | None  # its process; null where none runs


class WorkerSince(Worker):
    """A worker, and since when it runs."""

    started_at: float | None  # unix seconds; null where none runs


class Machine(TypedDict):
    """What the machine says of itself; null where it does not."""

    kept_awake: bool | None  # whether the worker keeps it from falling asleep; null where no job runs
    mains: bool | None  # whether it is on mains power
    battery_percent: int | None  # charge of the battery
    memory_free_bytes: int | None  # what a new process could take
    memory_bytes: int | None  # all there is


class Queue(TypedDict):
    """Whether jobs are handed out."""

    paused: bool  # no job starts until lq resume --queue
    because: str | None  # why, one line for a person


class Messages(TypedDict):
    """Messages that a service did not get."""

    waiting: int  # tried again
    gave_up: int  # given up within the last week


class Inbox(TypedDict):
    """The drop folder."""

    waiting: int  # files that nobody has taken yet
    because: str | None  # why none is taken; null where that is in order


class StatusAnswer(Answer):
    """Live jobs and the last ones that ended."""

    worker: WorkerSince
    machine: Machine
    queue: Queue  # whether jobs are handed out
    messages: Messages
    inbox: Inbox
    jobs: list[ListedJob]  # by id; with --group those to come first, then by their best validation


class ShowAnswer(Answer):
    """Everything about one job."""

    job: ShownJob
    spec: Mapping[str, Any]  # the job file with every default filled in; its schema is that of a job file
    attempts: list[Attempt]
    validations: list[Validation]
    tests: list[Validation]  # measurements of the test set
    checkpoints: list[CheckpointRecord]  # that were reported, on the disk or not
    incidents: list[Incident]
    messages: list[Message]


class SubmittedJob(TypedDict):
    """A job that was queued, or with --dry-run would be."""

    id: int | None  # null in a dry run, as status and job_dir
    name: str
    group: str | None  # the group that a matrix made
    settings: Mapping[str, Any]  # what the matrix sets, by key
    status: Status | None
    job_dir: str | None


class SubmitAnswer(Answer):
    """What was queued."""

    dry_run: bool  # nothing was
    jobs: list[SubmittedJob]  # in the order of the files


class ChangedJob(TypedDict):
    """A job that a verb was about, as it is afterwards."""

    id: int
    name: str
    status: Status  # a running job that is to stop may still be writing its checkpoint


class ChangedAnswer(Answer):
    """What became of the jobs."""

    jobs: list[ChangedJob]  # in the order in which they were taken


class TurnsAnswer(ChangedAnswer):
    """What became of the jobs, and whether any is handed out."""

    queue: Queue  # whether jobs are handed out


class WaitedJob(ChangedJob):
    """A job that was waited for."""

    code: int | None  # exit code its end stands for; null where it has not ended


class WaitAnswer(Answer):
    """How the wait ended."""

    code: int  # exit code of the command
    jobs: list[WaitedJob]


# --- after the run ---


class GenerateAnswer(Answer):
    """What a model answered."""

    id: int
    name: str
    model: str  # folder or name on the hub
    adapter: str | None  # its folder; null with --base
    iteration: int | None  # the adapter is of; null where it is not known, and with --base
    prompt: str  # as it was asked
    answer: str  # without what MLX-LM prints around it
    prompt_tokens: int | None  # of the prompt; null, as the four below, where MLX-LM was asked to say less
    tokens: int | None  # of the answer
    prompt_tok_s: float | None  # tokens of the prompt per second
    tok_s: float | None  # tokens of the answer per second
    peak_bytes: int | None  # memory


class MeasuredSet(TypedDict):
    """A loss over every row of a set, with its 95 % interval by row; the interval is null where it has one row."""

    iteration: int | None  # of the weights; 0 before training, null where it is not known
    loss: float  # nats per token
    standard_error: float | None  # of the loss
    loss_low: float | None  # lower end of the interval
    loss_high: float | None  # upper end
    perplexity: float  # e to the loss
    perplexity_low: float | None  # lower end of its interval
    perplexity_high: float | None  # upper end
    rows: int  # measured


class RunsOwn(MeasuredSet):
    """What the run itself measured."""

    kind: str  # test or validation


class TestAnswer(MeasuredSet, Answer):
    """Loss and perplexity on a test set."""

    id: int
    name: str
    data: str | None  # the file; null where the data is of the hub
    weights: str  # which: best, last, checkpoint, kept, before training, best so far, last so far
    tokens: int  # that were measured
    seconds: float  # it took
    by_the_run: list[RunsOwn]  # of the same weights, and before training


class FuseAnswer(Answer):
    """A model and its adapter in one folder."""

    id: int
    name: str
    model: str  # folder or name on the hub
    adapter: str  # its folder
    iteration: int | None  # the adapter is of; null where it is not known
    path: str  # the folder that was written
    bytes: int  # it takes


# --- before bed ---


class Caution(TypedDict):
    """Something a person should know."""

    code: str  # what it is about, one word
    text: str  # one line for a person


class CheckMemory(TypedDict):
    """The memory a rehearsal took."""

    peak_bytes: int | None  # the most that it took
    limit_bytes: int | None  # what lq.memory.limit comes to


class CheckSpeed(TypedDict):
    """How fast a rehearsal was."""

    it_s: float  # iterations per second on the run's mean batch
    updates: int  # optimizer updates that were tried
    first_update_s: float  # the first one, which compiles, in seconds
    update_s: float  # a later one, the median, in seconds
    padded_tokens: float  # of a batch that was tried
    mean_padded_tokens: float  # of the run's mean batch


class CheckTime(TypedDict):
    """How long the rest of the run will take, in seconds."""

    total_s: float  # all of it
    train_s: float  # iterations
    validation_s: float  # all validations
    checkpoint_s: float  # all checkpoints
    test_s: float  # the test set
    start_s: float  # all starts, compiling included
    iterations: int  # to train
    validations: int  # to make
    checkpoints: int  # to write
    starts: int  # one, or one a segment


class CheckDisk(TypedDict):
    """The disk."""

    need_bytes: int  # what the run takes at most
    free_bytes: int
    checkpoint_bytes: int | None  # the one that was written and verified; null where none was


class CheckData(TypedDict):
    """The data as the trainer read it."""

    rows: int  # to train on
    valid_rows: int  # to validate on
    truncated: int  # rows that are cut
    unsupervised: int  # rows without a token to learn
    padding_share: float | None  # of the positions of a batch, 0 to 1
    epochs: float  # times through the training set
    duplicates: int  # validation rows that are training rows too
    near_duplicates: int | None  # validation rows that nearly are; null where that was not sought


class CheckedJob(TypedDict):
    """A job that was rehearsed."""

    id: int | None  # null for a file
    name: str
    file: str | None  # null for a job of the queue
    ok: bool  # it would run, as far as a rehearsal shows
    failures: list[Caution]  # why it would not; the code is a reason code
    warnings: list[Caution]
    notes: list[str]  # what lq submit would note, one line each
    memory: CheckMemory
    speed: CheckSpeed | None  # null where the rehearsal did not come so far, as time and data
    time: CheckTime | None
    begins_at: float | None  # unix seconds
    ends_at: float | None  # unix seconds
    due_at: float | None  # its deadline, in unix seconds
    disk: CheckDisk
    data: CheckData | None


class CheckAnswer(Answer):
    """What a rehearsal says."""

    ok: bool  # every one would run
    ends_at: float | None  # when all that would run are done, in unix seconds
    jobs: list[CheckedJob]  # in the order in which they would run


class PlanParts(TypedDict):
    """What the memory is made of, in bytes."""

    weights: int  # bytes of the model
    trained: int  # bytes of the trained arrays, and the optimizer's
    activations: int  # bytes kept for the backward pass of the longest batch
    logits: int  # bytes
    gradients: int  # bytes of gradients and the update


Source = Literal["measured", "dry run", "same settings", "other settings", "formula"]


class PlanMemory(TypedDict):
    """The estimated peak memory of a run."""

    low_bytes: int  # hardly less
    expected_bytes: int
    high_bytes: int  # hardly more
    source: Source  # where the estimate comes from
    because: str  # the source, one line for a person
    parts: PlanParts


class PlanTime(TypedDict):
    """The time a run has left."""

    low_s: float  # seconds, hardly less
    expected_s: float  # seconds
    high_s: float  # seconds, hardly more
    source: Source  # where the estimate comes from
    because: str  # the source, one line for a person


Fits = Literal["fits", "tight", "does not fit"]


class Remedy(TypedDict):
    """A change of the settings that saves memory."""

    by: Literal["lq", "user"]  # the worker makes it after an out-of-memory, or only the user may
    change: str  # one line for a person
    memory: PlanMemory
    verdict: Fits
    first: bool  # the first that fits


class PlannedJob(TypedDict):
    """A job of the plan."""

    id: int | None  # null for a file
    file: str | None  # null for a job of the queue
    name: str
    status: str  # of the job; `file` for a file
    memory: PlanMemory | None  # null where the model is not on this machine
    limit_bytes: int  # lq.memory.limit
    room_bytes: int  # what it may take before the memory guard ends the attempt
    verdict: Fits | None  # null where nothing is known of its memory
    time: PlanTime | None  # null where the model never ran here: lq check measures it
    start: float | None  # unix seconds; null where that is not known
    end: float | None  # unix seconds; null where that is not known
    stints: list[tuple[float, float | None]]  # when it trains: from, until, in unix seconds; null where nobody knows
    behind: int | None  # the job after which nothing is known; below 0 a file
    deadline: float | None  # unix seconds
    late_s: float | None  # seconds after its deadline; below 0 it is met by so many
    remedies: list[Remedy]  # if it is tight or does not fit: the worker's ladder in its order, then the user's changes
    disk_bytes: int | None  # what a file would take; null for a job of the queue
    notes: list[str]  # one line each


class PlanDisk(TypedDict):
    """The disk."""

    free_bytes: int
    need_bytes: int  # what all these jobs may still take
    floor_bytes: int  # what must stay free


class PlanAnswer(Answer):
    """The night ahead."""

    now: float  # unix seconds
    recommended_bytes: int  # what the device recommends to take at most
    recommended_by: str  # where that is known from
    queue_paused: bool  # no job starts until lq resume --queue
    disk: PlanDisk
    jobs: list[PlannedJob]  # in the order in which they are chosen


# --- afterwards ---


class ComparedJob(TypedDict):
    """A job beside others."""

    id: int
    name: str
    status: Status
    settings: Mapping[str, str]  # those that differ among the jobs, by key
    results: Mapping[str, str]  # as the table has them, by row
    validation: ValidationFacts
    best_minus_first: Difference | None  # best validation less that of the first job, row by row


class BestOf(TypedDict):
    """The best of a group."""

    id: int
    name: str
    loss: float  # its lowest validation, in nats per token
    adapter: str  # the folder of its adapter, absolute
    runner_up: int | None  # id of the next best; null where there is no other
    runner_up_minus_best: Difference | None  # row by row; null where that cannot be compared
    not_told_apart: list[int]  # ids of those that these rows do not tell from the best
    jobs: int  # that could be the best
    text: list[str]  # all this, one line each for a person


class CompareAnswer(Answer):
    """Jobs beside each other."""

    group: NotRequired[str]  # with --group: its name
    best_of: NotRequired[BestOf | None]  # with --group: null where no job has a validation and an adapter
    jobs: list[ComparedJob]  # as they were named; of a group the best one first
    not_compared_because: str | None  # why validations are not compared row by row
    picture: str  # the file of the curves, absolute


class VerifiedFile(TypedDict):
    """A file, or a checkpoint, that was checked."""

    path: str  # absolute
    ok: bool  # it is what it should be
    because: str  # what was compared, or what is wrong


class VerifiedJob(TypedDict):
    """A job whose files were checked."""

    id: int
    name: str
    ok: bool  # every file is
    files: list[VerifiedFile]


class VerifyAnswer(Answer):
    """What was checked."""

    jobs: list[VerifiedJob]  # as they were named


class PrunedEntry(TypedDict):
    """A checkpoint, a milestone or what a killed process left."""

    path: str  # absolute
    bytes: int  # that go with it; a file with several names counts once
    kept: bool  # it stays
    because: str  # why it stays or goes


class PrunedJob(TypedDict):
    """A job that was tidied."""

    id: int
    name: str
    bytes: int  # that were freed
    entries: list[PrunedEntry]


class PruneAnswer(Answer):
    """What was deleted, or with --dry-run would be."""

    dry_run: bool  # nothing was deleted
    jobs: list[PrunedJob]  # as they were named


class CleanedJob(TypedDict):
    """A job that was cleaned."""

    id: int
    name: str
    status: Status
    ended_at: float | None  # unix seconds
    bytes: int  # that were freed
    paths: list[str]  # what went, absolute
    only_adapter: bool  # its finished adapter goes too, and lies nowhere else


class CleanAnswer(Answer):
    """What was deleted, or with --dry-run would be."""

    dry_run: bool  # nothing was deleted
    jobs: list[CleanedJob]


# --- the machine ---


class WorkerAnswer(Answer):
    """Whether a worker runs."""

    worker: WorkerSince


class StartedWorker(Worker):
    """The worker that runs now."""

    started: bool  # by this command; false where one ran already


class WorkerStartAnswer(Answer):
    """What lq worker --detach did."""

    worker: StartedWorker


class StoppedWorker(TypedDict):
    """The worker that went home."""

    pid: int
    left_running: bool  # its trainers train on; else they wrote a checkpoint and their jobs paused


class WorkerStopAnswer(Answer):
    """What lq worker stop did."""

    stopped: StoppedWorker


class ServiceAnswer(Answer):
    """The worker as a service of launchd or systemd."""

    service: ServiceState


class ServiceFile(TypedDict):
    """What would be installed."""

    kind: Literal["launchd", "systemd"]
    path: str  # where it would lie, absolute
    text: str  # what it would hold


class ServicePrintAnswer(Answer):
    """The file of the service."""

    service: ServiceFile


class NotificationService(TypedDict):
    """Somebody who is told; never a URL."""

    name: str
    tags: list[str]  # that jobs choose it by
    on: list[str]  # events it hears of


class NotifyListAnswer(Answer):
    """The notification services of settings.yaml."""

    services: list[NotificationService]
    digest: str | None  # hour of the morning's message; null where there is none
    quiet: str | None  # hours in which only what is urgent is sent; null where there are none
    ping: bool  # whether a dead-man switch is set
    undelivered: list[Message]  # what services did not get


class Delivery(TypedDict):
    """A test message to one service."""

    name: str
    delivered: bool
    result: str  # delivered, failed, timed out, ...


class NotifyTestAnswer(Answer):
    """What became of the test messages."""

    services: list[Delivery]
    ping: str | None  # answered, or why not; null where no dead-man switch is set


class DoctorAnswer(Answer):
    """Whether this machine can train all night."""

    checks: list[Check]


class Preset(TypedDict):
    """A job file to begin with."""

    name: str
    summary: str  # what it is for, one line


class PresetsAnswer(Answer):
    """Every preset."""

    presets: list[Preset]  # the one that lq config init writes first


class WrittenPreset(TypedDict):
    """A preset that was written."""

    preset: str  # its name
    path: str  # where it lies now, as it was named


class InitAnswer(Answer):
    """What lq config init wrote."""

    written: WrittenPreset
