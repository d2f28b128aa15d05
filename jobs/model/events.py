"""The lines of events.jsonl, one Event each. They are the only channel from the trainer to the worker.

{"v":2,"seq":n,"time":unix,"awake":seconds,"attempt":n,"kind":…, …what the kind carries}
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cached_property
from typing import Any, ClassVar, Self, TypeVar

from jobs.model.errors import EventInvalid
from jobs.model.outcomes import Outcome, Reason

VERSION = 2

_ENVELOPE = ("v", "seq", "time", "awake", "attempt", "kind")


class Kind(StrEnum):
    """What an event reports (docs/reference/file-formats.md#eventsjsonl).

    `test` carries the loss on test.jsonl. `fact` carries a `name` and a `value` that only the trainer can determine,
    such as the tokenized data set or the trained parameters. A later fact with the same name replaces it.
    """

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
class EventValue:
    """The fields of one kind of event: the writer constructs it, readers get it from `Event.value`."""

    kind: ClassVar[Kind]

    def to_data(self) -> dict[str, Any]:
        """Return the fields of the line. A field that defaults to None is omitted if it is None."""
        return _to_data(self)


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

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Read the fields of a line."""
        return cls(
            iteration=int(data["iteration"]),
            pid=_whole(data.get("pid")),
            create_time=number(data.get("create_time")),
            boot_id=_text(data.get("boot_id")),
            versions=data.get("versions"),
            resumed_from=_text(data.get("resumed_from")),
            resume_quality=_text(data.get("resume_quality")),
            stage=_whole(data.get("stage")),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowLengths:
    """Tokens of the training rows, before they are truncated."""

    p99: int  # 99th percentile
    p95: int  # 95th percentile
    max: int | None = None  # the longest row


@dataclasses.dataclass(frozen=True, kw_only=True)
class PhaseEvent(EventValue):
    """The trainer has begun another phase."""

    kind = Kind.PHASE

    phase: str  # load, tokenize, probe, train, validate, save, test or answer
    lengths: RowLengths | None = None  # in the phase probe
    rows: int | None = None  # in the phase train: rows of the training set
    batches_per_epoch: int | None = None  # in the phase train

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Read the fields of a line."""
        lengths = data.get("lengths")
        return cls(
            phase=str(data["phase"]),
            lengths=None
            if lengths is None
            else RowLengths(p99=int(lengths["p99"]), p95=int(lengths["p95"]), max=_whole(lengths.get("max"))),
            rows=_whole(data.get("rows")),
            batches_per_epoch=_whole(data.get("batches_per_epoch")),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryReading:
    """The memory of the trainer and of the machine, in bytes."""

    active: int | None = _nullable()  # arrays in use
    cache: int | None = _nullable()  # kept by MLX for later use
    peak: int | None = _nullable()  # highest value of `active`
    footprint: int | None = _nullable()  # of the process
    limit: int | None = _nullable()  # the value of lq.memory.limit
    address_space_share: float | None = _nullable()  # highest share of the address space limit, 0 to 1
    swap: int | None = _nullable()  # in use on the machine
    pressure_high: bool | None = _nullable()  # the machine is short of memory

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Read the `memory` of a line."""
        pressure = data.get("pressure_high")
        return cls(
            **{name: _whole(data.get(name)) for name in ("active", "cache", "peak", "footprint", "limit", "swap")},
            address_space_share=number(data.get("address_space_share")),
            pressure_high=None if pressure is None else bool(pressure),
        )


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
    memory: MemoryReading = MemoryReading()

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Read the fields of a line."""
        return cls(
            iteration=int(data["iteration"]),
            losses=tuple(float(loss) for loss in data.get("losses") or ()),
            learning_rate=number(data.get("learning_rate")),
            tokens=_whole(data.get("tokens")),
            it_s=number(data.get("it_s")),
            tok_s=number(data.get("tok_s")),
            grad_norm=number(data.get("grad_norm")),
            skipped=tuple(int(iteration) for iteration in data.get("skipped") or ()),
            memory=MemoryReading.from_data(data.get("memory") or {}),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredEvent(EventValue):
    """A loss over rows of the validation set or the test set."""

    iteration: int  # of the weights
    loss: float  # nats per token
    standard_error: float | None = _nullable()  # of the loss, by row; None for one row
    examples: int  # rows
    seconds: float
    row_losses: tuple[float, ...] | None = None  # nats per token of each row, in file order

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Read the fields of a line."""
        losses = data.get("row_losses")
        return cls(
            iteration=int(data["iteration"]),
            loss=float(data["loss"]),
            standard_error=number(data.get("standard_error")),
            examples=int(data["examples"]),
            seconds=float(data["seconds"]),
            row_losses=None if losses is None else tuple(float(loss) for loss in losses),
            **cls._more(data),
        )

    @classmethod
    def _more(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValidationEvent(MeasuredEvent):
    """The validation set was measured."""

    kind = Kind.VALIDATION

    asked: bool | None = None  # True: between two scheduled validations, at the request of the loss guard

    @classmethod
    def _more(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        return {"asked": bool(data["asked"]) if data.get("asked") is not None else None}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinalTestEvent(MeasuredEvent):
    """The test set was measured."""

    kind = Kind.TEST

    perplexity: float | None = None  # exp(loss)

    @classmethod
    def _more(cls, data: Mapping[str, Any]) -> dict[str, Any]:
        return {"perplexity": number(data.get("perplexity"))}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointEvent(EventValue):
    """A checkpoint was written."""

    kind = Kind.CHECKPOINT

    iteration: int  # completed iterations
    path: str  # relative to the folder of the job
    bytes: int  # of its files
    seconds: float

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Read the fields of a line."""
        return cls(
            iteration=int(data["iteration"]),
            path=str(data["path"]),
            bytes=int(data["bytes"]),
            seconds=float(data["seconds"]),
        )


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

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Read the fields of a line."""
        return cls(
            measured=number(data.get("measured")),
            recorded=number(data.get("recorded")),
            equal=bool(data["equal"]),
            **{name: _whole(data.get(name)) for name in ("iteration", "examples", "batch_size", "recorded_batch_size")},
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactEvent(EventValue):
    """Something that only the trainer can determine. A later fact with the same name replaces it."""

    kind = Kind.FACT

    name: str
    value: Any  # of JSON

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Read the fields of a line."""
        return cls(name=str(data["name"]), value=data["value"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class WarningEvent(EventValue):
    """Something that the user should know."""

    kind = Kind.WARNING

    code: str
    text: str  # one line
    data: Mapping[str, Any] | None = None  # the numbers

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Read the fields of a line."""
        return cls(code=str(data["code"]), text=str(data["text"]), data=dict(data.get("data") or {}))


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndedEvent(EventValue):
    """The trainer exits. A trainer that is killed does not write it."""

    kind = Kind.ENDED

    outcome: Outcome | None
    reason: Reason | None
    iteration: int | None = None  # completed iterations
    detail: str = ""  # one line

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Read the fields of a line; an unknown outcome or reason becomes None."""
        outcome, reason = data.get("outcome"), data.get("reason")
        return cls(
            outcome=Outcome(outcome) if outcome in set(Outcome) else None,
            reason=Reason(reason) if reason in set(Reason) else None,
            iteration=_whole(data.get("iteration")),
            detail=str(data.get("detail") or ""),
        )


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
        """The fields as a value.

        Raises:
            EventInvalid: a field is missing or has the wrong type.
        """
        try:
            return _VALUES[self.kind].from_data(self.data)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise EventInvalid(f"event {self.seq} of kind {self.kind} cannot be used: {error!r}") from error


_VALUES = {
    value.kind: value
    for value in (
        StartedEvent,
        PhaseEvent,
        ProgressEvent,
        ValidationEvent,
        FinalTestEvent,
        CheckpointEvent,
        SelfTestEvent,
        FactEvent,
        WarningEvent,
        EndedEvent,
    )
}


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
    """Parse one line.

    Raises:
        EventInvalid: it is not JSON, not an event, of an unknown kind, or of another version.
    """
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


def _to_data(value: Any) -> dict[str, Any]:
    data = {}
    for field in dataclasses.fields(value):
        content = getattr(value, field.name)
        if content is not None or field.default is not None or field.metadata.get("nullable"):
            data[field.name] = _to_data(content) if dataclasses.is_dataclass(content) else content
    return data


def number(value: object) -> float | None:
    """Read a number written by `finite`: "nan" and "inf" become floats, None stays None."""
    return None if value is None else float(value)  # type: ignore[arg-type]


def _whole(value: object) -> int | None:
    exact = number(value)
    return None if exact is None else int(exact)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
