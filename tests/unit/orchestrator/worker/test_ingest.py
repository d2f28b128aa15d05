"""Ingesting events.jsonl, with a real file and a real store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.model.errors import NoSuchJob
from jobs.model.events import Event, Kind, to_line
from jobs.model.job import ProcessIdentity
from orchestrator.store.store import Store
from orchestrator.worker.ingest import BATCH, ingest

OWNER = ProcessIdentity(pid=10, create_time=1.0, boot_id="b")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Open a store with job 1 in its first attempt."""
    with Store.open(tmp_path / "lq.db") as opened:
        opened.jobs.submit(name="n", priority=0, iters=1000, spec_json="{}", prepare=lambda _: tmp_path, now=1.0)
        opened.leases.claim(OWNER, 2.0)
        opened.attempts.begin(1, owner=OWNER, now=3.0)
        yield opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of the job's events.jsonl."""
    return tmp_path / "events.jsonl"


def line(seq: int, iteration: int) -> bytes:
    """Return a progress line with one loss."""
    data = {"iteration": iteration, "losses": [1.0]}
    return to_line(Event(seq=seq, time=float(seq), awake=float(seq), attempt=1, kind=Kind.PROGRESS, data=data))


def append(path: Path, content: bytes) -> None:
    """Append to the file as the trainer does."""
    with path.open("ab") as file:
        file.write(content)


def take(store: Store, path: Path) -> list[int]:
    """Ingest, and return the seq of each new event."""
    return [event.seq for event in ingest(store, 1, path, 1, 50.0)]


def iterations(store: Store) -> list[int]:
    """Return the iterations of the reports in the store."""
    return [point.iteration for point in store.metrics.points(1)]


def test_missing_log_is_empty(store: Store, path: Path) -> None:
    assert take(store, path) == []


def test_each_line_is_ingested_once(store: Store, path: Path) -> None:
    append(path, line(1, 1) + line(2, 2))
    assert take(store, path) == [1, 2]
    assert take(store, path) == []
    append(path, line(3, 3))
    assert take(store, path) == [3]
    assert iterations(store) == [1, 2, 3]
    assert store.events.offset(1) == path.stat().st_size


def test_torn_last_line_waits(store: Store, path: Path) -> None:
    complete = line(2, 2)
    append(path, line(1, 1) + complete[:20])
    assert take(store, path) == [1]
    append(path, complete[20:])
    assert take(store, path) == [2]
    assert store.incidents.of(1) == []


def test_unreadable_lines_are_recorded_once(store: Store, path: Path) -> None:
    append(path, line(1, 1) + b'{"v":2,"seq"\n' + b"\xff\xfe\n" + line(2, 2))
    assert take(store, path) == [1, 2]
    assert take(store, path) == []
    [incident] = store.incidents.of(1)
    assert (incident.code, incident.time, incident.evidence["lines"]) == ("events_unreadable", 50.0, 2)
    assert incident.evidence["between_bytes"] == [0, path.stat().st_size]
    assert iterations(store) == [1, 2]


def test_unreadable_log_is_read_once(store: Store, path: Path) -> None:
    append(path, b"rubbish\n")
    assert take(store, path) == []
    assert store.events.offset(1) == 8
    assert take(store, path) == []
    assert len(store.incidents.of(1)) == 1


def test_repeated_line_counts_once(store: Store, path: Path) -> None:
    append(path, line(1, 1) + line(1, 1) + line(2, 2))
    take(store, path)
    assert iterations(store) == [1, 2]


def test_long_log_is_ingested_in_batches(store: Store, path: Path) -> None:
    many = 2 * BATCH + 7
    append(path, b"".join(line(number, number) for number in range(1, many + 1)))
    assert take(store, path) == list(range(1, many + 1))
    assert store.jobs.get(1).iteration == many
    assert len(iterations(store)) == many


def test_crash_between_batches(store: Store, path: Path) -> None:
    events = [Event(seq=1, time=1.0, awake=1.0, attempt=1, kind=Kind.PROGRESS, data={"iteration": 1, "losses": [1.0]})]
    assert store.events.ingest(1, events, offset_before=0, offset_after=0, steps_per_report=1, now=9.0)
    append(path, line(1, 1) + line(2, 2))
    take(store, path)
    assert iterations(store) == [1, 2]


def test_unknown_job_raises(store: Store, path: Path) -> None:
    with pytest.raises(NoSuchJob, match="no job 2"):
        ingest(store, 2, path, 1, 50.0)


def test_deleted_log_is_read_from_start(store: Store, path: Path) -> None:
    append(path, line(1, 1) + line(2, 2) + line(3, 3))
    take(store, path)
    path.unlink()
    assert take(store, path) == []
    append(path, line(3, 3) + line(4, 4))
    take(store, path)
    assert iterations(store) == [1, 2, 3, 4]
    assert store.events.offset(1) == path.stat().st_size
    (incident,) = store.incidents.of(1)
    assert incident.code == "events_lost"
