"""The lines of events.jsonl, one Event each. They are the only channel from the trainer to the worker.

{"v":2,"seq":n,"time":unix,"awake":seconds,"attempt":n,"kind":…, …what the kind carries}
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from functools import cached_property
from typing import Any, ClassVar, Self, TypeVar

from jobs.model.errors import EventInvalid
from jobs.model.outcomes import Outcome, Reason

VERSION = 2

_ENVELOPE = ("v", "seq", "time", "awake", "attempt", "kind")


class Kind(StrEnum):
    """What an event reports (docs/reference/file-formats.md#eventsjsonl)."""

    STARTED = "started"
    PHASE = "phase"
    PROGRESS = "progress"
    VALIDATION = "validation"
    TEST = "test"
    CHECKPOINT = "checkpoint"
    SELF_TEST = "self_test"
    FACT = "fact"
    WARNING = "warning"
    ENDED = "ended"


_Value = TypeVar("_Value", bound="EventValue")


def _nullable() -> Any:
    """Return the default of a field that every line has, with null for None."""
    return dataclasses.field(default=None, metadata={"nullable": True})


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Fields:
    """Fields of a line, read and written by the types of the dataclass."""

    def to_data(self) -> dict[str, Any]:
        """Return the fields of the line. A field that defaults to None is omitted if it is None."""
        data = {}
        for field in dataclasses.fields(self):
            content = getattr(self, field.name)
            if content is not None or field.default is not None or field.metadata:
                data[field.name] = content.to_data() if isinstance(content, _Fields) else content
        return data

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Read the fields of a line. A field without a default must be there, unless its type permits None."""
        given = {}
        for field in dataclasses.fields(cls):
            kind = str(field.type)
            if data.get(field.name) is not None or (field.default is dataclasses.MISSING and "None" not in kind):
                given[field.name] = _READ[kind.removesuffix(" | None")](data[field.name])
            elif field.default is dataclasses.MISSING:
                given[field.name] = None
        return cls(**given)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EventValue(_Fields):
    """The fields of one kind of event: the writer constructs it, readers get it from `Event.value`."""

    kind: ClassVar[Kind]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartedEvent(EventValue):
    """A trainer process has started."""

    kind = Kind.STARTED

    iteration: int  # completed iterations
    pid: int | None = None
    create_time: float | None = None  # of the process, in unix seconds
    boot_id: str | None = None  # identifies the boot of the machine
    versions: Mapping[str, str] | None = None  # of the packages and of the machine
    resumed_from: str | None = _nullable()  # name of the checkpoint; None for a fresh start
    resume_quality: str | None = None  # a Quality code
    stage: int | None = None  # index of the stage in the run plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowLengths(_Fields):
    """Tokens of the training rows, before they are truncated."""

    p99: int  # 99th percentile
    p95: int  # 95th percentile
    max: int | None = None  # the longest row


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseEvent(EventValue):
    """The trainer has begun another phase."""

    kind = Kind.PHASE

    phase: str  # load, tokenize, reference, probe, train, validate, save, test or answer
    lengths: RowLengths | None = None  # in the phase probe
    rows: int | None = None  # in the phase train: rows of the training set
    batches_per_epoch: int | None = None  # in the phase train


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryReading(_Fields):
    """The memory of the trainer and of the machine, in bytes."""

    active: int | None = _nullable()  # arrays in use
    cache: int | None = _nullable()  # kept by MLX for later use
    peak: int | None = _nullable()  # highest value of `active`
    footprint: int | None = _nullable()  # of the process
    limit: int | None = _nullable()  # the value of lq.memory.limit
    address_space_share: float | None = _nullable()  # highest share of the address space limit, 0 to 1
    swap: int | None = _nullable()  # in use on the machine
    pressure_high: bool | None = _nullable()  # the machine is short of memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgressEvent(EventValue):
    """Iterations were trained. Without losses it reports only that the trainer is alive."""

    kind = Kind.PROGRESS

    iteration: int  # completed iterations
    losses: tuple[float, ...] = ()  # of each iteration since the last line, in nats per token
    learning_rate: float | None = _nullable()  # of the last update
    tokens: int | None = _nullable()  # trained since the beginning of the job
    it_s: float | None = _nullable()  # iterations per second in this line
    tok_s: float | None = _nullable()  # tokens per second in this line
    grad_norm: float | None = _nullable()  # global norm of the last update's gradients, before clipping
    skipped: tuple[int, ...] = ()  # iterations whose update was not applied
    chosen_rewards: tuple[float, ...] | None = None  # mean over each iteration's chosen answers, of a preference run
    rejected_rewards: tuple[float, ...] | None = None  # the same of the rejected answers; NaN if there is none
    accuracies: tuple[float, ...] | None = None  # share of each iteration's rows whose rewards agree with it, 0 to 1
    memory: MemoryReading = MemoryReading()


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredRewards(_Fields):
    """The implicit rewards of rows of preferences. A number is NaN if no row has it."""

    chosen: float  # mean over the chosen, or desirable, answers
    rejected: float  # mean over the rejected, or undesirable, answers
    margin: float  # the difference of the two
    margin_error: float | None = _nullable()  # standard error, by row
    accuracy: float  # share of rows whose rewards agree with the preference, 0 to 1
    accuracy_error: float | None = _nullable()  # standard error, by row


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredEvent(EventValue):
    """A loss over rows of the validation set or the test set."""

    iteration: int  # of the weights
    loss: float  # nats per token
    standard_error: float | None = _nullable()  # of the loss, by row; None for one row
    examples: int  # rows
    seconds: float
    row_losses: tuple[float, ...] | None = None  # nats per token of each row, in file order
    rewards: MeasuredRewards | None = None  # of a preference run


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValidationEvent(MeasuredEvent):
    """The validation set was measured."""

    kind = Kind.VALIDATION

    asked: bool | None = None  # True: between two scheduled validations, at the request of the loss guard


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinalTestEvent(MeasuredEvent):
    """The test set was measured."""

    kind = Kind.TEST

    perplexity: float | None = None  # exp(loss)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointEvent(EventValue):
    """A checkpoint was written."""

    kind = Kind.CHECKPOINT

    iteration: int  # completed iterations
    path: str  # relative to the folder of the job
    bytes: int  # of its files
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelfTestEvent(EventValue):
    """After a resume, a loss that the checkpoint had recorded was measured again."""

    kind = Kind.SELF_TEST

    iteration: int | None = None
    measured: float | None = None  # nats per token
    recorded: float | None = None  # nats per token
    equal: bool  # to the last bit; for another batch size, within the tolerance
    examples: int | None = None  # rows
    batch_size: int | None = None  # rows, now
    recorded_batch_size: int | None = None  # rows, when it was recorded


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactEvent(EventValue):
    """Something that only the trainer can determine. A later fact with the same name replaces it."""

    kind = Kind.FACT

    name: str
    value: Any  # of JSON


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarningEvent(EventValue):
    """Something that the user should know."""

    kind = Kind.WARNING

    code: str
    text: str  # one line
    data: Mapping[str, Any] | None = None  # the numbers


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndedEvent(EventValue):
    """The trainer exits. A trainer that is killed does not write it."""

    kind = Kind.ENDED

    outcome: Outcome | None
    reason: Reason | None
    iteration: int | None = None  # completed iterations
    detail: str = ""  # one line


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """One line of events.jsonl."""

    seq: int  # from 1, per attempt, without gaps
    time: float  # unix seconds
    awake: float  # seconds on the clock that stops while the machine sleeps
    attempt: int
    kind: Kind
    data: Mapping[str, Any]  # the fields of this kind

    @cached_property
    def value(self) -> EventValue:
        """The fields as a value; EventInvalid if one is missing or has the wrong type."""
        try:
            return _VALUES[self.kind].from_data(self.data)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise EventInvalid(f"event {self.seq} of kind {self.kind} cannot be used: {error!r}") from error


_VALUES = {
    value.kind: value
    for value in (
        *(StartedEvent, PhaseEvent, ProgressEvent, ValidationEvent, FinalTestEvent),
        *(CheckpointEvent, SelfTestEvent, FactEvent, WarningEvent, EndedEvent),
    )
}

_READ: dict[str, Callable[[Any], Any]] = {
    "Any": lambda value: value,
    "str": str,
    "bool": bool,
    "int": lambda value: int(float(value)),
    "float": float,
    "tuple[int, ...]": lambda value: tuple(map(int, value)),
    "tuple[float, ...]": lambda value: tuple(map(float, value)),
    "Mapping[str, Any]": dict,
    "Mapping[str, str]": dict,
    "Outcome": lambda value: Outcome(value) if value in set(Outcome) else None,
    "Reason": lambda value: Reason(value) if value in set(Reason) else None,
    "RowLengths": RowLengths.from_data,
    "MemoryReading": MemoryReading.from_data,
    "MeasuredRewards": MeasuredRewards.from_data,
}
"""How the content of a field is read from JSON, by the type of the field; non-finite numbers are strings."""


def value_of(event: Event) -> EventValue | None:
    """Return the fields of an event as a value; None if they have a wrong shape, which the store reports."""
    try:
        return event.value
    except EventInvalid:
        return None


def values_of(events: Iterable[Event], kind: type[_Value]) -> list[_Value]:
    """Return the values of all events of one kind, without those of a wrong shape."""
    values = (value_of(event) for event in events if event.kind is kind.kind)
    return [value for value in values if isinstance(value, kind)]


def to_line(event: Event) -> bytes:
    """Return the event as one line of UTF-8 with a newline. Non-finite numbers become strings."""
    head = {
        "v": VERSION,
        "seq": event.seq,
        "time": round(event.time, 3),
        "awake": round(event.awake, 3),
        "attempt": event.attempt,
        "kind": event.kind.value,
    }
    text = json.dumps(head | finite(dict(event.data)), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode(errors="replace") + b"\n"  # an error text may contain a file name that is not UTF-8


def from_line(line: bytes | str) -> Event:
    """Parse one line; EventInvalid if it is not JSON, not an event, of an unknown kind, or of another version."""
    try:
        fields = json.loads(line)
        version = fields["v"]
        if version != VERSION:
            raise EventInvalid(f"an event of version {version}; this lq reads version {VERSION}")
        return Event(
            seq=int(fields["seq"]),
            time=float(fields["time"]),
            awake=float(fields["awake"]),
            attempt=int(fields["attempt"]),
            kind=Kind(fields["kind"]),
            data={key: value for key, value in fields.items() if key not in _ENVELOPE},
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise EventInvalid(f"not an event: {line[:80]!r}") from error


def finite(value: Any) -> Any:
    """Replace every non-finite float in `value`, at any depth, by "nan", "inf" or "-inf"."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def number(value: object) -> float | None:
    """Read a number written by `finite`: "nan" and "inf" become floats, None stays None."""
    return None if value is None else float(value)  # type: ignore[arg-type]
