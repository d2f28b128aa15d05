"""The lines of events.jsonl, one Event each. They are the only channel from the trainer to the worker.

{"v":1,"seq":n,"time":unix,"awake":seconds,"attempt":n,"kind":…, …what the kind carries}
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from jobs.model.errors import EventInvalid

VERSION = 1

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """One line of events.jsonl."""

    seq: int  # from 1, per attempt, without gaps
    time: float  # unix seconds
    awake: float  # seconds on the clock that stops while the machine sleeps
    attempt: int
    kind: Kind
    data: Mapping[str, Any]  # the fields of this kind


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
            raise EventInvalid(f"an event of version {version}; this lq reads version {VERSION}: update lq")
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
