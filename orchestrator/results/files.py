"""The JSON files that lq writes, as types: checkpoints, run plan, provenance, and the lines of events.jsonl.

report.json is orchestrator/report/facts.py. What earlier versions did not write yet is NotRequired.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from configs.data_files import DataFacts
from jobs.model.outcomes import Outcome, Quality, Reason
from jobs.model.run_plan import Stage

# --- events.jsonl ---


class Line(TypedDict):
    """What every line has."""

    v: Literal[1]
    seq: int  # from 1, per attempt, without gaps
    time: float  # unix seconds
    awake: float  # seconds on the clock that stops in sleep
    attempt: int


class Started(Line):
    """A trainer has begun."""

    kind: Literal["started"]
    pid: int
    create_time: float  # of the process, in unix seconds, as the operating system gives it
    boot_id: str
    versions: Mapping[str, str]  # of what an exact resume needs to be the same, by name; `machine` too
    resumed_from: str | None  # name of the checkpoint; null for a fresh start
    iteration: int  # completed iterations when it begins
    resume_quality: Quality
    stage: NotRequired[int]  # index of the stage of the run plan that it begins on


class Lengths(TypedDict):
    """Tokens of the training rows, before they are cut."""

    p99: int  # 99th percentile
    p95: int  # 95th percentile
    max: int  # the longest row


class Phase(Line):
    """It does something else now."""

    kind: Literal["phase"]
    phase: Literal["load", "tokenize", "probe", "train", "validate", "save", "test", "answer"]
    lengths: NotRequired[Lengths]  # of a probe
    rows: NotRequired[int]  # where training begins: rows of the training set
    batches_per_epoch: NotRequired[int]  # where training begins


class Memory(TypedDict):
    """What the trainer takes, in bytes."""

    active: int  # bytes of arrays that live
    cache: int  # bytes that MLX keeps for later
    peak: int  # the most bytes that were active
    footprint: int | None  # bytes of the whole process
    limit: NotRequired[int | None]  # what lq.memory.limit comes to, in bytes
    address_space_share: NotRequired[float | None]  # the most it took of what it may address, 0 to 1
    swap: NotRequired[int | None]  # bytes of the machine
    pressure_high: NotRequired[bool | None]  # the machine is short of memory


class ProgressLine(Line):
    """Iterations were trained; without losses a sign of life."""

    kind: Literal["progress"]
    iteration: int  # the last one that is completed
    losses: list[float]  # of each iteration since the last such line, in nats per token
    learning_rate: float | None  # of the last update
    tokens: int  # trained since the beginning of the job
    it_s: float | None  # iterations per second, in this line
    tok_s: float | None  # tokens per second, in this line
    grad_norm: float | None  # global, of the last update, before clipping
    skipped: NotRequired[list[int]]  # iterations whose update was not applied
    memory: Memory


class Measured(Line):
    """A loss over rows."""

    iteration: int  # of the weights
    loss: float  # nats per token
    standard_error: float | None  # of the loss, by row; null where there is one row
    examples: int  # rows
    seconds: float  # it took
    row_losses: list[float]  # nats per token of each row, in file order


class ValidationLine(Measured):
    """The validation set was measured."""

    kind: Literal["validation"]
    asked: NotRequired[Literal[True]]  # between two due ones, because a signal asked for it


class TestLine(Measured):
    """The test set was measured."""

    kind: Literal["test"]
    perplexity: float  # exp(loss)


class CheckpointLine(Line):
    """A checkpoint was written."""

    kind: Literal["checkpoint"]
    iteration: int  # completed iterations
    path: str  # relative to the job's folder
    bytes: int  # of its files
    seconds: float  # it took


class SelfTestLine(Line):
    """After a resume, what the checkpoint had recorded was measured again."""

    kind: Literal["self_test"]
    iteration: int  # where it went on
    measured: float  # nats per token
    recorded: float  # nats per token
    equal: bool  # to the last bit; in batches of another size as close as these come
    examples: int  # rows
    batch_size: NotRequired[int]  # rows of a batch now
    recorded_batch_size: NotRequired[int]  # rows of a batch when it was recorded


class Tokenised(TypedDict):
    """A data file, tokenised; no more than its rows where it has none."""

    rows: int
    tokens: NotRequired[int]  # after long rows were cut
    supervised_tokens: NotRequired[int]  # that are learned
    truncated: NotRequired[int]  # rows that are cut
    truncated_tokens: NotRequired[int]  # that are cut off
    shortest: NotRequired[int]  # tokens of a row, before it is cut; as all below
    median: NotRequired[float]  # tokens of a row
    p95: NotRequired[float]  # tokens of a row: 95th percentile
    longest: NotRequired[int]  # tokens of a row


class TwinRows(TypedDict):
    """A row that stands in the training set too."""

    row: int  # in its own file, from 1
    train_row: int  # in the training set, from 1
    share: float  # of shingles in common; 1 where they are equal


class Common(TypedDict):
    """What a file has in common with the training set."""

    exact: int  # rows that stand there word for word
    near: int | None  # rows that nearly do; null where that was not sought
    inside: int  # training rows that repeat an earlier one
    examples: list[TwinRows]  # ten at most


class DatasetValue(TypedDict):
    """The data set, tokenised."""

    max_seq_length: int  # tokens; longer rows are cut
    padding_share: float | None  # of all positions of the batches, 0 to 1
    train: Tokenised
    valid: Tokenised
    test: Tokenised
    learned: Mapping[str, list[int]]  # tokens of each row that are learned, of valid and test
    also_trained: Mapping[str, Common]  # of valid and test


class ParametersValue(TypedDict):
    """What of the model is trained."""

    trained: int  # parameters
    total: int  # parameters of the model
    targets: list[str]  # modules of a layer, such as self_attn.q_proj; none for a full fine-tune
    layers: int  # that are trained


class AnswerValue(TypedDict):
    """What the model said to one of lq.prompts."""

    prompt: str
    answer: str  # without chance, cut after max_tokens
    iteration: int  # of the weights
    max_tokens: int  # after which it is cut


class Fact(Line):
    """Something only the trainer can see; a later one of the same name takes its place."""

    kind: Literal["fact"]


class DatasetFact(Fact):
    """What the data set is like."""

    name: Literal["dataset"]
    value: DatasetValue


class ParametersFact(Fact):
    """What of the model is trained."""

    name: Literal["parameters"]
    value: ParametersValue


class BatteryFact(Fact):
    """The battery before and after."""

    name: Literal["battery.before", "battery.after"]
    value: tuple[float, bool]  # its charge, 0 to 1, and whether the machine is on mains power


class AnswerFact(Fact):
    """What the model said to a prompt, before and after training."""

    name: Annotated[str, Field(pattern=r"^answer\.(before|after)\.\d+$")]  # answer.before.0 and so on, by prompt
    value: AnswerValue


class WarningLine(Line):
    """Something a person should know."""

    kind: Literal["warning"]
    code: str  # what it is about: truncated, unsupervised, not_applied, autopsy, checkpoint_invalid, ...
    text: str  # one line for a person
    data: NotRequired[Mapping[str, Any]]  # the numbers, by code


class Ended(Line):
    """The trainer is done; one that was killed does not say so."""

    kind: Literal["ended"]
    outcome: Outcome
    reason: Reason
    iteration: int  # completed iterations
    detail: str  # one line for a person


EventLine = (
    Started
    | Phase
    | ProgressLine
    | ValidationLine
    | TestLine
    | CheckpointLine
    | SelfTestLine
    | DatasetFact
    | ParametersFact
    | BatteryFact
    | AnswerFact
    | WarningLine
    | Ended
)

# --- checkpoints ---


class Pending(TypedDict):
    """The report that was not complete yet."""

    tokens: int  # trained since the beginning of the job
    losses: list[float]  # of its iterations so far, in nats per token
    skipped: list[int]  # iterations whose update was not applied


class LastValidation(TypedDict):
    """The last validation before the checkpoint."""

    loss: float  # nats per token
    standard_error: float | None  # of the loss, by row
    examples: int  # rows
    iteration: int
    asked: bool  # between two due ones: no candidate for the best


class Fingerprint(TypedDict):
    """What a resume measures again."""

    loss: float  # nats per token
    examples: int  # rows
    batch_size: int  # rows of a batch


class CheckpointState(TypedDict):
    """Where a run stood, beside its weights and moments."""

    version: Literal[2]
    iteration: int  # completed iterations
    examples_seen: int  # rows that were trained, or passed over
    stage: int  # index of the stage of the run plan that it was trained on
    updates: int  # optimizer updates
    finite: bool  # every weight and moment is a finite number
    random_key: tuple[int, int]  # MLX's, its high half first
    progress: Pending
    validation: LastValidation | None  # null before the first one
    self_test: Fingerprint | None  # null where there is no validation set
    versions: Mapping[str, str]  # that an exact resume needs to be the same, by name
    machine: str  # device and processor, likewise
    data: Mapping[str, str]  # sha256 of the data files, by name; empty for a data set of the hub


class ManifestEntry(TypedDict):
    """A file of the checkpoint."""

    bytes: int
    sha256: str


class CheckpointManifest(TypedDict):
    """What the files of a checkpoint must be; written last."""

    version: Literal[1]
    iteration: int  # completed iterations
    files: Mapping[Literal["adapters.safetensors", "optimizer.safetensors", "state.json"], ManifestEntry]  # by name


# --- the job's folder ---


class RunPlanFile(TypedDict):
    """The stages of the run so far."""

    version: Literal[2]
    stages: list[Stage]  # in the order in which they were decided


class Submitted(TypedDict):
    """What was submitted."""

    file: str  # absolute
    sha256: str  # of the file as it was then
    set: list[str]  # what --set gave, KEY=VALUE
    matrix: Mapping[str, Any]  # what its matrix set for this job, by key


class Host(TypedDict):
    """Where it was submitted."""

    name: str  # of the machine in its network
    platform: str  # operating system and version
    machine: str  # the processor


class WeightsFile(TypedDict):
    """A file of the model's weights."""

    file: str  # its name
    bytes: int


class Model(TypedDict):
    """The model, as it was found; its weights are not read."""

    name: str  # a folder, or a name on the Hugging Face hub
    revision: NotRequired[None]  # of a model of the hub: not known before it is loaded
    config_sha256: NotRequired[str | None]  # of a folder: of its config.json
    weights: NotRequired[list[WeightsFile]]  # of a folder


class DiskNeed(TypedDict):
    """What the run may take of the disk."""

    bytes: int  # in all
    checkpoint_bytes: int | None  # of one checkpoint; null where the model is not on this machine
    checkpoints: int  # that lie there at most at a time


class Provenance(TypedDict):
    """Where a job came from, and what it was to run on."""

    version: Literal[1]
    submitted: Submitted
    host: Host
    versions: Mapping[str, str | None]  # of lq, Python and the libraries, by name; null where one is missing
    model: Model
    data: DataFacts
    overwrites: Mapping[str, str]  # sha256 of the files in adapter_path that may be replaced, by name
    disk: DiskNeed
