"""The JSON files that lq writes, as types: checkpoints, run plan, provenance, and the lines of events.jsonl.

orchestrator/report/facts.py has report.json. Fields that older versions did not write are NotRequired.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from configs.data_files import DataFacts
from jobs.model.events import (
    CheckpointEvent,
    EndedEvent,
    FinalTestEvent,
    PhaseEvent,
    ProgressEvent,
    SelfTestEvent,
    StartedEvent,
    ValidationEvent,
    WarningEvent,
)
from jobs.model.run_plan import Stage
from orchestrator.model_files.hashes import FileHash
from orchestrator.report.facts import Parameters, Twin

# --- events.jsonl ---


class EventFields(TypedDict):
    """Fields of every line."""

    v: Literal[2]
    seq: int  # number of the line in the attempt, from 1 without gaps
    time: float  # unix seconds
    awake: float  # seconds on the clock that stops while the machine sleeps
    attempt: int


class TokenisedValue(TypedDict):
    """A tokenised data file; a file without rows has only the field `rows`."""

    rows: int
    tokens: NotRequired[int]  # number of tokens after truncation
    supervised_tokens: NotRequired[int]  # tokens with a loss
    truncated: NotRequired[int]  # truncated rows
    truncated_tokens: NotRequired[int]  # tokens removed by truncation
    shortest: NotRequired[int]  # shortest row in tokens before truncation, as the fields below
    median: NotRequired[float]  # median tokens of a row
    p95: NotRequired[float]  # tokens of a row: 95th percentile
    longest: NotRequired[int]  # longest row in tokens
    measured: NotRequired[int]  # rows that val_batches or test_batches lets the trainer measure


class OverlapValue(TypedDict):
    """Rows of a file that are also in the training set."""

    exact: int  # identical rows
    near: int | None  # similar rows; null if not searched
    measured: int  # those of the identical rows that val_batches or test_batches measures
    inside: int  # rows that repeat an earlier training row
    examples: list[Twin]  # at most ten examples


class DatasetValue(TypedDict):
    """The tokenised data set."""

    max_seq_length: int  # maximum tokens of a row
    padding_share: float | None  # share of padding in the batches, 0 to 1
    train: TokenisedValue
    valid: TokenisedValue
    test: TokenisedValue
    learned: Mapping[str, list[int]]  # tokens with a loss of each row, for valid and test
    also_trained: Mapping[str, OverlapValue]  # overlap with the training set, for valid and test


class AnswerValue(TypedDict):
    """The answer of the model to one of lq.prompts, or to the question of a validation row."""

    prompt: str
    answer: str  # greedy answer of at most max_tokens tokens
    iteration: int  # iteration of the weights
    max_tokens: int  # maximum tokens of the answer
    row: NotRequired[int]  # row of valid.jsonl, from 1
    reference: NotRequired[str]  # the answer in that row


class FactLine(EventFields):
    """A fact from the trainer; a later line of the same name replaces it."""

    kind: Literal["fact"]


class DatasetFact(FactLine):
    """Facts about the data set."""

    name: Literal["dataset"]
    value: DatasetValue


class ParametersFact(FactLine):
    """The trained part of the model."""

    name: Literal["parameters"]
    value: Parameters


class BatteryFact(FactLine):
    """The battery before and after training."""

    name: Literal["battery.before", "battery.after"]
    value: tuple[float, bool]  # charge, 0 to 1, and whether the machine is on mains power


class AnswerFact(FactLine):
    """The answer to a prompt before or after training."""

    name: Annotated[str, Field(pattern=r"^answer\.(before|after)\.\d+$")]  # such as answer.before.0
    value: AnswerValue


EventLine = (
    StartedEvent
    | PhaseEvent
    | ProgressEvent
    | ValidationEvent
    | FinalTestEvent
    | CheckpointEvent
    | SelfTestEvent
    | DatasetFact
    | ParametersFact
    | BatteryFact
    | AnswerFact
    | WarningEvent
    | EndedEvent
)
"""json_schema.py adds the fields of EventFields and `kind` to the dataclasses."""

# --- checkpoints ---


class ManifestEntry(TypedDict):
    """A file of the checkpoint."""

    bytes: int
    sha256: str


class CheckpointManifest(TypedDict):
    """The files of a checkpoint; written last."""

    version: Literal[1]
    iteration: int  # completed iterations
    files: Mapping[Literal["adapters.safetensors", "optimizer.safetensors", "state.json"], ManifestEntry]  # by name


# --- the job's folder ---


class RunPlanFile(TypedDict):
    """The stages of the run so far."""

    version: Literal[3]
    stages: list[Stage]  # in the order of the decisions


class SubmittedFile(TypedDict):
    """The submitted job file."""

    file: str  # absolute
    sha256: str  # SHA-256 of the file at submission
    set: list[str]  # values of --set, as KEY=VALUE
    matrix: Mapping[str, Any]  # settings from the matrix for this job, by key
    retry_of: int | None  # the job whose settings it has, with changes; None for a job of a file


class SubmitHost(TypedDict):
    """The machine on which the job was submitted."""

    name: str  # host name
    platform: str  # operating system and version
    machine: str  # processor


class ModelFacts(TypedDict):
    """The model at submission."""

    name: str  # folder, or name on the Hugging Face hub
    files: list[FileHash]  # what MLX-LM loads of it; empty until the model is on this machine


class DiskFacts(TypedDict):
    """Estimated disk space of the run."""

    bytes: int  # total
    checkpoint_bytes: int | None  # size of one checkpoint; null if the model is not on this machine
    checkpoints: int  # highest number of checkpoints at a time


class Provenance(TypedDict):
    """The origin of a job: file, machine, versions, model and data."""

    version: Literal[2]
    submitted: SubmittedFile
    host: SubmitHost
    versions: Mapping[str, str | None]  # versions of lq, Python and the libraries, by name; null if not installed
    model: ModelFacts
    data: DataFacts
    overwrites: Mapping[str, str]  # SHA-256 of the files in adapter_path that may be overwritten, by name
    disk: DiskFacts
