"""SQLite answers each query by an index, so its time does not grow with the number of jobs. Plans, not times."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event

from jobs.model.events import Event, Kind
from jobs.model.job import NewMessage
from jobs.model.outcomes import Reason
from jobs.model.states import Status
from orchestrator.store.store import Store
from tests.unit.orchestrator.cli_homes import WORKER, Home, Seen

ONE_ROW = {"SCAN queue"}
"""Plans that read a whole table which always has one row."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with an ended job, a running job, a queued job and a message."""
    home = Home(tmp_path / "home")
    seen = Seen(iteration=500, train_loss=1.25, val_loss=1.5, it_s=2.0)
    home.ended(Status.SUCCEEDED, Reason.COMPLETED, seen=seen)
    home.running(seen=seen)
    home.queued()
    home.store.outbox.add(NewMessage(job_id=1, event="finished", key="1", title="t", body="b"), 0.0)
    yield home.store
    home.store.close()


QUERIES: dict[str, Callable[[Store], object]] = {
    "status": lambda store: store.jobs.overview(),
    "live jobs": lambda store: store.jobs.overview(ended=0),
    "a job": lambda store: store.jobs.get(2),
    "its spec": lambda store: store.jobs.spec_json(2),
    "running": lambda store: store.jobs.running(),
    "a free path": lambda store: store.jobs.require_free_paths(["/adapters"]),
    "attempts": lambda store: store.attempts.of(2),
    "crashes": lambda store: store.attempts.crashes(2),
    "recent attempts": lambda store: store.attempts.recent(since=0.0),
    "points": lambda store: store.metrics.points(2),
    "new points": lambda store: store.metrics.points(2, after=400),
    "every point": lambda store: store.metrics.points(2, superseded=True),
    "validations": lambda store: store.metrics.validations(2),
    "checkpoints": lambda store: store.metrics.checkpoints(2),
    "incidents": lambda store: store.incidents.of(2),
    "a curve": lambda store: store.status.recent_points(2, 40),
    "best validations": lambda store: store.status.best_validations([1, 2]),
    "how many incidents": lambda store: store.status.incident_counts([1, 2]),
    "the newest incident": lambda store: store.status.newest_incident(2),
    "its running attempt": lambda store: store.status.running_attempt(2),
    "facts": lambda store: store.metrics.facts(2),
    "self tests": lambda store: store.attempts.self_tests(2),
    "stages": lambda store: store.run_plans.stages(2),
    "a fit": lambda store: store.fits.get("key"),
    "queue state": lambda store: store.queue.state(),
    "messages of a job": lambda store: store.outbox.messages(1),
    "undelivered messages": lambda store: store.outbox.undelivered(0.0),
    "due messages": lambda store: store.outbox.due(time.time()),
    "the last digest": lambda store: store.outbox.last_digest(),
    "related messages": lambda store: store.outbox.related(store.outbox.get(1)),
    "events": lambda store: _ingested(store),
    "the queue": lambda store: store.queue.waiting(),
    "dependencies": lambda store: store.dependencies.find(),
    "dependencies of a job": lambda store: store.dependencies.find(of=3),
    "ids by name": lambda store: store.jobs.ids_called("job"),
    "due jobs": lambda store: store.queue.enqueue_due(1.0, lambda _: ()),
    "a move": lambda store: store.queue.move(3, last=True),
    "a heartbeat": lambda store: store.leases.heartbeat(2, WORKER, 1.0),
    "a claim": lambda store: store.leases.claim(WORKER, 1.0),
    "jobs that a worker paused": lambda store: store.jobs.release_paused_by_worker(1.0),
}


@pytest.mark.parametrize("query", QUERIES)
def test_query_reads_no_whole_table(store: Store, query: str) -> None:
    plans = plans_of(store, QUERIES[query])
    assert plans
    assert not [line for line in plans if line.startswith("SCAN") and line not in ONE_ROW]


def test_overview_uses_index_of_end_times(store: Store) -> None:
    assert "SEARCH jobs USING COVERING INDEX ix_jobs_ended_at (ended_at>?)" in plans_of(
        store, lambda store: store.jobs.overview()
    )


def test_whole_table_read_is_detected(store: Store) -> None:
    assert any(line.startswith("SCAN") for line in plans_of(store, lambda store: store.jobs.overview(all_jobs=True)))


def plans_of(store: Store, query: Callable[[Store], object]) -> list[str]:
    """Return the lines of SQLite's plans for every statement of a query."""
    with _statements(store) as statements:
        query(store)
    lines = []
    with store.database.reading() as db:
        for statement, parameters in statements:
            if statement.split(None, 1)[0] in ("SELECT", "UPDATE", "DELETE", "INSERT"):
                rows = db.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
                lines += [str(row[3]) for row in rows]
    return lines


@contextmanager
def _statements(store: Store) -> Iterator[list[tuple[str, Any]]]:
    """Collect the statements that run, each with one set of parameters."""
    statements: list[tuple[str, Any]] = []

    def add(_: Connection, __: object, statement: str, parameters: Any, ___: object, many: bool) -> None:
        statements.append((statement, parameters[0] if many else parameters))

    with store.database.reading() as db:
        engine = db.engine
    event.listen(engine, "before_cursor_execute", add)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", add)


def _ingested(store: Store) -> None:
    payloads: list[tuple[Kind, dict[str, Any]]] = [
        (Kind.STARTED, {"iteration": 500, "pid": 9, "create_time": 1.0, "boot_id": "b"}),
        (Kind.PHASE, {"phase": "train"}),
        (Kind.PROGRESS, {"iteration": 510, "losses": [1.0] * 10}),
        (Kind.VALIDATION, {"iteration": 510, "loss": 1.0, "examples": 8, "seconds": 0.5}),
        (Kind.CHECKPOINT, {"iteration": 510, "path": "checkpoints/step-0000510", "bytes": 1, "seconds": 0.1}),
        (Kind.FACT, {"name": "parameters", "value": {}}),
        (Kind.WARNING, {"code": "slow", "text": "slow"}),
    ]
    events = [
        Event(seq=seq, time=2.0, awake=1.0, attempt=1, kind=kind, data=data)
        for seq, (kind, data) in enumerate(payloads, start=10)
    ]
    before = store.events.offset(2)
    assert store.events.ingest(2, events, offset_before=before, offset_after=before + 1, steps_per_report=10, now=2.0)
