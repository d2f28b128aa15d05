"""events.jsonl: what a child wrote is read once and whole, whatever became of the child."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.model.errors import EventInvalid
from jobs.model.events import Event, Kind
from workers.events import log as event_log
from workers.events.log import EventLog, last_words, read


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The job's events.jsonl."""
    return tmp_path / "events.jsonl"


def write(path: Path, attempt: int, *kinds: Kind) -> list[Event]:
    with EventLog(path, attempt) as log:
        return [log.append(kind, note=f"{attempt}.{place}") for place, kind in enumerate(kinds)]


def test_a_reader_finds_what_was_written_and_goes_on_from_there(path: Path) -> None:
    first = write(path, 1, Kind.STARTED, Kind.PHASE)
    seen = read(path, 0)
    assert [(event.seq, event.kind, dict(event.data)) for event in seen.events] == [
        (event.seq, event.kind, event.data) for event in first
    ]
    assert seen.offset == path.stat().st_size
    assert read(path, seen.offset) == event_log.Read([], [], seen.offset)
    write(path, 2, Kind.STARTED)
    assert [(event.attempt, event.seq) for event in read(path, seen.offset).events] == [(2, 1)]


def test_a_job_that_has_not_begun_has_said_nothing(path: Path) -> None:
    assert read(path, 0) == event_log.Read([], [], 0)
    assert last_words(path, 1) is None


def test_nobody_else_may_read_it(path: Path) -> None:
    write(path, 1, Kind.STARTED)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_each_attempt_counts_from_one_without_gaps(path: Path) -> None:
    write(path, 1, Kind.STARTED, Kind.PHASE, Kind.PHASE)
    write(path, 2, Kind.STARTED, Kind.ENDED)
    assert [(event.attempt, event.seq) for event in read(path, 0).events] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]


def test_a_line_that_is_still_being_written_is_left_for_the_next_time(path: Path) -> None:
    write(path, 1, Kind.STARTED, Kind.PHASE)
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    seen = read(path, 0)
    assert [event.seq for event in seen.events] == [1]
    path.write_bytes(whole)
    assert [event.seq for event in read(path, seen.offset).events] == [2]


@pytest.mark.parametrize("cut", [1, 2, 25])
def test_a_line_torn_by_a_crash_costs_nothing_but_itself(path: Path, cut: int) -> None:
    write(path, 1, Kind.STARTED, Kind.PHASE)
    path.write_bytes(path.read_bytes()[:-cut])
    write(path, 2, Kind.STARTED, Kind.ENDED)
    seen = read(path, 0)
    torn = cut > 1  # a lost newline alone loses no event
    assert [(event.attempt, event.seq) for event in seen.events] == [
        (1, 1),
        *([] if torn else [(1, 2)]),
        (2, 1),
        (2, 2),
    ]
    assert len(seen.unreadable) == torn
    assert seen.offset == path.stat().st_size


def test_a_torn_line_is_passed_over_by_a_reader_that_stood_before_it(path: Path) -> None:
    write(path, 1, Kind.STARTED, Kind.PHASE)
    path.write_bytes(path.read_bytes()[:-20])
    waiting = read(path, 0)
    write(path, 2, Kind.STARTED)
    seen = read(path, waiting.offset)
    assert [event.attempt for event in seen.events] == [2]
    assert len(seen.unreadable) == 1


def test_a_line_of_eight_megabytes_is_read_whole(path: Path) -> None:
    losses = [1.2345678] * 900_000
    with EventLog(path, 1) as log:
        log.append(Kind.PHASE, phase="train")
        log.append(Kind.VALIDATION, row_losses=losses)
        log.append(Kind.PHASE, phase="save")
    assert path.stat().st_size > 8 << 20
    offset, events = 0, []
    for _ in range(10):
        seen = read(path, offset)
        assert not seen.unreadable
        events += seen.events
        offset = seen.offset
    assert [event.kind for event in events] == [Kind.PHASE, Kind.VALIDATION, Kind.PHASE]
    assert events[1].data["row_losses"] == losses


def test_many_megabytes_are_read_in_pieces_and_nothing_is_lost(path: Path) -> None:
    with EventLog(path, 1) as log:
        for _ in range(60):
            log.append(Kind.WARNING, code="x", text="y" * 100_000)
    assert path.stat().st_size > event_log.LONGEST_READ
    offset, seqs, reads = 0, [], 0
    while offset < path.stat().st_size:
        seen = read(path, offset)
        seqs += [event.seq for event in seen.events]
        offset, reads = seen.offset, reads + 1
    assert seqs == list(range(1, 61))
    assert reads == 2


def test_two_threads_never_tear_each_others_lines(path: Path) -> None:
    with EventLog(path, 1) as log:

        def chatter(name: str) -> None:
            for number in range(200):
                log.append(Kind.WARNING, code=name, text=str(number) + "z" * (number * 37 % 900))

        threads = [threading.Thread(target=chatter, args=(name,)) for name in ("trainer", "heartbeat")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    seen = read(path, 0)
    assert not seen.unreadable
    assert [event.seq for event in seen.events] == list(range(1, 401))
    for name in ("trainer", "heartbeat"):
        own = [int(event.data["text"].rstrip("z")) for event in seen.events if event.data["code"] == name]
        assert own == list(range(200))


def test_last_words_are_the_ended_event_of_that_attempt_only(path: Path) -> None:
    write(path, 1, Kind.STARTED, Kind.ENDED)
    write(path, 2, Kind.STARTED, Kind.PHASE)
    first = last_words(path, 1)
    assert first is not None
    assert (first.kind, first.attempt, first.data["note"]) == (Kind.ENDED, 1, "1.1")
    assert last_words(path, 2) is None
    assert last_words(path, 3) is None


def test_last_words_are_heard_behind_a_torn_line(path: Path) -> None:
    write(path, 1, Kind.STARTED, Kind.ENDED)
    with path.open("ab") as file:
        file.write(b'{"v":1,"seq":3,"ti')
    assert last_words(path, 1) is not None


def test_last_words_are_found_at_the_end_of_a_long_file(path: Path) -> None:
    with EventLog(path, 1) as log:
        log.append(Kind.WARNING, code="x", text="y" * (3 << 20))
        log.append(Kind.ENDED, outcome="done")
    words = last_words(path, 1)
    assert words is not None
    assert words.data["outcome"] == "done"


def test_silence_is_measured_from_the_last_line(path: Path) -> None:
    with EventLog(path, 1) as log:
        log.append(Kind.PHASE, phase="load")
        first = log.quiet_for()
        log.append(Kind.PHASE, phase="train")
        assert 0 <= log.quiet_for() < 5.0
        assert first >= 0


def test_a_finished_log_is_kept_compressed_and_read_as_ever(path: Path) -> None:
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
    event_log.pack(path)  # again: nothing is left to do
    assert read(path, 0) == plain


def test_a_trainer_goes_on_with_a_log_that_was_compressed(path: Path) -> None:
    write(path, 1, Kind.STARTED, Kind.ENDED)
    offset, before = read(path, 0).offset, path.read_bytes()
    event_log.pack(path)
    event_log.unpack(path)
    assert [entry.name for entry in path.parent.iterdir()] == ["events.jsonl"]
    write(path, 2, Kind.STARTED)
    assert path.read_bytes().startswith(before)
    assert [event.attempt for event in read(path, offset).events] == [2]
    event_log.unpack(path)  # again: nothing is left to do
    assert [event.attempt for event in read(path, 0).events] == [1, 1, 2]


def test_killed_while_it_was_compressed_or_unpacked_the_log_is_whole(path: Path) -> None:
    """Both forms are there between the rename and the deletion; a torn one never has its name."""
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
def test_a_damaged_compressed_log_is_named(path: Path, harm: Callable[[bytes], bytes]) -> None:
    write(path, 1, *[Kind.PHASE] * 30)
    event_log.pack(path)
    form = event_log.packed(path)
    form.write_bytes(harm(form.read_bytes()))
    for look in (lambda: read(path, 0), lambda: event_log.unpack(path)):
        with pytest.raises(EventInvalid, match=r"events\.jsonl\.gz is damaged"):
            look()
    assert form.exists()
    assert not path.exists()
