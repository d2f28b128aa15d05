"""Lines of events.jsonl: round trip, and refusal of other content."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.model.errors import EventInvalid
from jobs.model.events import (
    VERSION,
    CheckpointEvent,
    EndedEvent,
    Event,
    EventValue,
    FactEvent,
    FinalTestEvent,
    Kind,
    MemoryReading,
    PhaseEvent,
    ProgressEvent,
    RowLengths,
    SelfTestEvent,
    StartedEvent,
    ValidationEvent,
    WarningEvent,
    finite,
    from_line,
    number,
    to_line,
    value_of,
    values_of,
)
from jobs.model.outcomes import Outcome, Reason

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
ENVELOPE = {"v", "seq", "time", "awake", "attempt", "kind"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
EVENTS = st.builds(
    Event,
    seq=st.integers(1, 10**9),
    time=st.floats(0, 4e9).map(lambda value: round(value, 3)),
    awake=st.floats(0, 1e8).map(lambda value: round(value, 3)),
    attempt=st.integers(1, 10**6),
    kind=st.sampled_from(Kind),
    data=st.dictionaries(TEXT.filter(lambda key: key not in ENVELOPE), JSON, max_size=4),
)


def line(**changes: Any) -> str:
    """Return a valid line with some fields changed."""
    fields = {"v": 2, "seq": 1, "time": 1.0, "awake": 1.0, "attempt": 1, "kind": "phase", "phase": "load"}
    return json.dumps(fields | changes)


@given(event=EVENTS)
def test_event_survives_round_trip(event: Event) -> None:
    written = to_line(event)
    assert written.endswith(b"\n")
    assert written.count(b"\n") == 1
    assert from_line(written) == event


@given(values=st.lists(st.floats(), max_size=5))
def test_non_finite_losses_survive(values: list[float]) -> None:
    event = Event(seq=1, time=1.0, awake=1.0, attempt=1, kind=Kind.PROGRESS, data={"losses": values})
    written = to_line(event)
    json.loads(written, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    read = [number(item) for item in from_line(written).data["losses"]]
    assert [repr(item) for item in read] == [repr(item) for item in values]


def test_non_finite_numbers_become_text() -> None:
    values = {"a": math.nan, "b": [math.inf, (-math.inf, 1.5)], "c": {"d": math.nan}, "e": "nan", "f": None}
    assert finite(values) == {"a": "nan", "b": ["inf", ["-inf", 1.5]], "c": {"d": "nan"}, "e": "nan", "f": None}
    assert number("-inf") == -math.inf
    assert number(None) is None


def test_surrogates_are_replaced_in_text() -> None:
    """An error can name a file whose name is not UTF-8; Python represents such bytes as lone surrogates."""
    event = Event(seq=1, time=1.0, awake=1.0, attempt=1, kind=Kind.ENDED, data={"detail": "no file b\udce4r"})
    assert from_line(to_line(event)).data["detail"] == "no file b?r"


@pytest.mark.parametrize("version", [VERSION - 1, VERSION + 1])
def test_other_event_version_is_refused(version: int) -> None:
    with pytest.raises(EventInvalid, match=f"version {version}.* version {VERSION}"):
        from_line(line(v=version, kind="something_new"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "7",
        "[]",
        '"phase"',
        "{}",
        line(kind="sing"),
        line(kind=None),
        line(seq=None),
        line(seq="first"),
        line(time="noon"),
        line(attempt=[1]),
        line(seq=1)[:-3],
        line().replace('"seq": 1', '"seq": Infinity'),
        line().replace('"seq": 1', '"seq": NaN'),
        "[" * 100_000,
        b"\xff\xfe\x00",
    ],
)
def test_invalid_event_is_refused(text: str | bytes) -> None:
    with pytest.raises(EventInvalid) as caught:
        from_line(text)
    assert str(caught.value).startswith("not an event: ")
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@given(garbage=st.binary(max_size=60))
def test_random_bytes_are_never_an_event(garbage: bytes) -> None:
    with pytest.raises(EventInvalid):
        from_line(garbage)


@pytest.mark.parametrize("field", sorted(ENVELOPE))
def test_envelope_fields_are_required(field: str) -> None:
    fields = json.loads(line())
    del fields[field]
    with pytest.raises(EventInvalid):
        from_line(json.dumps(fields))


NUMBERS = st.floats(allow_nan=False)
READINGS = st.builds(MemoryReading, active=st.none() | st.integers(0, 2**40), limit=st.none() | st.integers(0, 2**40))
VALUES: st.SearchStrategy[EventValue] = st.one_of(
    st.builds(StartedEvent, iteration=st.integers(0, 10**6), pid=st.integers(1, 2**22), stage=st.none() | st.just(1)),
    st.builds(PhaseEvent, phase=st.sampled_from(["load", "train"]), lengths=st.none() | st.builds(RowLengths)),
    st.builds(
        ProgressEvent,
        iteration=st.integers(0, 10**6),
        losses=st.lists(NUMBERS, max_size=3).map(tuple),
        skipped=st.lists(st.integers(1, 9), max_size=2).map(tuple),
        it_s=st.none() | NUMBERS,
        memory=READINGS,
    ),
    st.builds(
        ValidationEvent,
        iteration=st.integers(0, 10**6),
        loss=NUMBERS,
        examples=st.integers(1, 99),
        seconds=NUMBERS,
        row_losses=st.none() | st.lists(NUMBERS, max_size=3).map(tuple),
        asked=st.none() | st.just(True),
    ),
    st.builds(
        FinalTestEvent, iteration=st.just(1), loss=NUMBERS, examples=st.just(1), seconds=NUMBERS, perplexity=NUMBERS
    ),
    st.builds(CheckpointEvent, iteration=st.just(1), path=TEXT, bytes=st.integers(0, 2**40), seconds=NUMBERS),
    st.builds(SelfTestEvent, equal=st.booleans(), measured=NUMBERS, recorded=NUMBERS, iteration=st.just(1)),
    st.builds(FactEvent, name=TEXT, value=JSON),
    st.builds(WarningEvent, code=TEXT, text=TEXT, data=st.dictionaries(TEXT, st.integers(), max_size=2)),
    st.builds(EndedEvent, outcome=st.sampled_from(Outcome), reason=st.sampled_from(Reason), detail=TEXT),
)


@given(value=VALUES)
def test_value_survives_the_file(value: EventValue) -> None:
    event = Event(seq=1, time=1.0, awake=1.0, attempt=1, kind=value.kind, data=value.to_data())
    assert from_line(to_line(event)).value == value


def test_nullable_fields_are_written_as_null() -> None:
    data = ProgressEvent(iteration=1, memory=MemoryReading(active=1)).to_data()
    assert (data["it_s"], data["memory"]["footprint"], data["losses"]) == (None, None, ())
    assert "lengths" not in PhaseEvent(phase="load").to_data()


def test_wrong_shape_raises_event_invalid() -> None:
    event = from_line(line(kind="progress", losses=[1.0]))
    with pytest.raises(EventInvalid, match="event 1 of kind progress"):
        _ = event.value
    assert value_of(event) is None
    assert values_of([event, from_line(line())], PhaseEvent) == [PhaseEvent(phase="load")]


def test_unknown_outcome_is_read_as_none() -> None:
    ended = from_line(line(kind="ended", outcome="vanished", reason="completed")).value
    assert ended == EndedEvent(outcome=None, reason=Reason.COMPLETED)
