"""The event log: each event is read once, also after a crash of the trainer."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.model.errors import EventInvalid
from jobs.model.events import (
    EndedEvent,
    Event,
    EventValue,
    Kind,
    PhaseEvent,
    StartedEvent,
    ValidationEvent,
    WarningEvent,
)
from jobs.model.outcomes import Outcome, Reason
from workers.events import log as event_log
from workers.events.log import EventLog, ended_event, read


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of events.jsonl."""
    return tmp_path / "events.jsonl"


def value_of(kind: Kind, note: str) -> EventValue:
    """Return a value of a kind that contains a note."""
    if kind is Kind.STARTED:
        return StartedEvent(iteration=0, boot_id=note)
    return PhaseEvent(phase=note) if kind is Kind.PHASE else EndedEvent(outcome=None, reason=None, detail=note)


def write(path: Path, attempt: int, *kinds: Kind) -> list[Event]:
    with EventLog(path, attempt) as log:
        return [log.append(value_of(kind, f"{attempt}.{number}")) for number, kind in enumerate(kinds)]


def test_reader_continues_from_offset(path: Path) -> None:
    first = write(path, 1, Kind.STARTED, Kind.PHASE)
    chunk = read(path, 0)
    assert [(event.seq, event.kind, dict(event.data)) for event in chunk.events] == [
        (event.seq, event.kind, event.data) for event in first
    ]
    assert chunk.offset == path.stat().st_size
    assert read(path, chunk.offset) == event_log.Read([], [], chunk.offset)
    write(path, 2, Kind.STARTED)
    assert [(event.attempt, event.seq) for event in read(path, chunk.offset).events] == [(2, 1)]


def test_missing_log_is_empty(path: Path) -> None:
    assert read(path, 0) == event_log.Read([], [], 0)
    assert ended_event(path, 1) is None


def test_log_is_private(path: Path) -> None:
    write(path, 1, Kind.STARTED)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_seq_starts_at_one_per_attempt(path: Path) -> None:
    write(path, 1, Kind.STARTED, Kind.PHASE, Kind.PHASE)
    write(path, 2, Kind.STARTED, Kind.ENDED)
    assert [(event.attempt, event.seq) for event in read(path, 0).events] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]


def test_incomplete_line_is_left(path: Path) -> None:
    write(path, 1, Kind.STARTED, Kind.PHASE)
    complete = path.read_bytes()
    path.write_bytes(complete[:-10])
    chunk = read(path, 0)
    assert [event.seq for event in chunk.events] == [1]
    path.write_bytes(complete)
    assert [event.seq for event in read(path, chunk.offset).events] == [2]


@pytest.mark.parametrize("cut", [1, 2, 25])
def test_torn_line_loses_only_itself(path: Path, cut: int) -> None:
    write(path, 1, Kind.STARTED, Kind.PHASE)
    path.write_bytes(path.read_bytes()[:-cut])
    write(path, 2, Kind.STARTED, Kind.ENDED)
    chunk = read(path, 0)
    torn = cut > 1  # a lost newline alone loses no event
    assert [(event.attempt, event.seq) for event in chunk.events] == [
        (1, 1),
        *([] if torn else [(1, 2)]),
        (2, 1),
        (2, 2),
    ]
    assert len(chunk.unreadable) == torn
    assert chunk.offset == path.stat().st_size


def test_reader_skips_later_torn_line(path: Path) -> None:
    write(path, 1, Kind.STARTED, Kind.PHASE)
    path.write_bytes(path.read_bytes()[:-20])
    waiting = read(path, 0)
    write(path, 2, Kind.STARTED)
    chunk = read(path, waiting.offset)
    assert [event.attempt for event in chunk.events] == [2]
    assert len(chunk.unreadable) == 1


def test_line_of_8_mb(path: Path) -> None:
    losses = (1.2345678,) * 900_000
    with EventLog(path, 1) as log:
        log.append(PhaseEvent(phase="train"))
        log.append(ValidationEvent(iteration=1, loss=1.0, examples=1, seconds=1.0, row_losses=losses))
        log.append(PhaseEvent(phase="save"))
    assert path.stat().st_size > 8 << 20
    offset, events = 0, []
    for _ in range(10):
        chunk = read(path, offset)
        assert not chunk.unreadable
        events += chunk.events
        offset = chunk.offset
    assert [event.kind for event in events] == [Kind.PHASE, Kind.VALIDATION, Kind.PHASE]
    assert events[1].value == ValidationEvent(iteration=1, loss=1.0, examples=1, seconds=1.0, row_losses=losses)


def test_long_log_is_read_in_chunks(path: Path) -> None:
    with EventLog(path, 1) as log:
        for _ in range(60):
            log.append(WarningEvent(code="x", text="y" * 100_000))
    assert path.stat().st_size > event_log.LONGEST_READ
    offset, seqs, reads = 0, [], 0
    while offset < path.stat().st_size:
        chunk = read(path, offset)
        seqs += [event.seq for event in chunk.events]
        offset, reads = chunk.offset, reads + 1
    assert seqs == list(range(1, 61))
    assert reads == 2


def test_threads_do_not_tear_lines(path: Path) -> None:
    with EventLog(path, 1) as log:

        def chatter(name: str) -> None:
            for number in range(200):
                log.append(WarningEvent(code=name, text=str(number) + "z" * (number * 37 % 900)))

        threads = [threading.Thread(target=chatter, args=(name,)) for name in ("trainer", "heartbeat")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    chunk = read(path, 0)
    assert not chunk.unreadable
    assert [event.seq for event in chunk.events] == list(range(1, 401))
    for name in ("trainer", "heartbeat"):
        own = [int(event.data["text"].rstrip("z")) for event in chunk.events if event.data["code"] == name]
        assert own == list(range(200))


def test_ended_event_of_attempt(path: Path) -> None:
    write(path, 1, Kind.STARTED, Kind.ENDED)
    write(path, 2, Kind.STARTED, Kind.PHASE)
    assert ended_event(path, 1) == EndedEvent(outcome=None, reason=None, detail="1.1")
    assert ended_event(path, 2) is None
    assert ended_event(path, 3) is None


def test_ended_event_after_torn_line(path: Path) -> None:
    write(path, 1, Kind.STARTED, Kind.ENDED)
    with path.open("ab") as file:
        file.write(b'{"v":2,"seq":3,"ti')
    assert ended_event(path, 1) is not None


def test_ended_event_of_long_log(path: Path) -> None:
    with EventLog(path, 1) as log:
        log.append(WarningEvent(code="x", text="y" * (3 << 20)))
        log.append(EndedEvent(outcome=Outcome.DONE, reason=Reason.COMPLETED))
    words = ended_event(path, 1)
    assert words is not None
    assert words.outcome is Outcome.DONE


def test_quiet_for_starts_at_last_line(path: Path) -> None:
    with EventLog(path, 1) as log:
        log.append(PhaseEvent(phase="load"))
        first = log.quiet_for()
        log.append(PhaseEvent(phase="train"))
        assert 0 <= log.quiet_for() < 5.0
        assert first >= 0


def test_packed_log_is_read(path: Path) -> None:
    write(path, 1, *[Kind.PHASE] * 300)
    plain = read(path, 0)
    half = plain.offset // 2
    rest = read(path, half)
    size = path.stat().st_size
    event_log.pack(path)
    form = event_log.packed(path)
    assert [entry.name for entry in path.parent.iterdir()] == ["events.jsonl.gz"]
    assert form.stat().st_size < size / 4
    assert stat.S_IMODE(form.stat().st_mode) == 0o600
    assert read(path, 0) == plain
    assert read(path, half) == rest
    assert read(path, plain.offset) == event_log.Read([], [], plain.offset)
    event_log.pack(path)  # no effect
    assert read(path, 0) == plain


def test_unpacked_log_can_be_appended(path: Path) -> None:
    write(path, 1, Kind.STARTED, Kind.ENDED)
    offset, before = read(path, 0).offset, path.read_bytes()
    event_log.pack(path)
    event_log.unpack(path)
    assert [entry.name for entry in path.parent.iterdir()] == ["events.jsonl"]
    write(path, 2, Kind.STARTED)
    assert path.read_bytes().startswith(before)
    assert [event.attempt for event in read(path, offset).events] == [2]
    event_log.unpack(path)  # no effect
    assert [event.attempt for event in read(path, 0).events] == [1, 1, 2]


def test_kill_while_packing_loses_nothing(path: Path) -> None:
    """Both forms exist between the rename and the deletion; a torn form has a temporary name."""
    write(path, 1, Kind.STARTED, Kind.ENDED)
    plain, content = read(path, 0), path.read_bytes()
    event_log.pack(path)
    path.write_bytes(content)
    (path.parent / ".events.jsonl.gz.partial").write_bytes(b"torn")
    (path.parent / ".events.jsonl.partial").write_bytes(b"torn")
    assert read(path, 0) == plain
    event_log.unpack(path)
    assert not event_log.packed(path).exists()
    assert read(path, 0) == plain
    event_log.pack(path)
    event_log.unpack(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "harm", [lambda raw: raw[:-12], lambda raw: b"no gzip at all", lambda raw: raw[:30] + b"x" * 9]
)
def test_damaged_packed_log_raises(path: Path, harm: Callable[[bytes], bytes]) -> None:
    write(path, 1, *[Kind.PHASE] * 30)
    event_log.pack(path)
    form = event_log.packed(path)
    form.write_bytes(harm(form.read_bytes()))
    for look in (lambda: read(path, 0), lambda: event_log.unpack(path)):
        with pytest.raises(EventInvalid, match=r"events\.jsonl\.gz is damaged"):
            look()
    assert form.exists()
    assert not path.exists()
