"""The schema on a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, Table, create_engine, insert, select
from sqlalchemy.exc import IntegrityError, ProgrammingError

from orchestrator.store.schema import create_all, metadata
from orchestrator.store.versions import MIGRATIONS, upgrade
from tests.postgres import Cluster

LARGE = 21_000_000_000
"""Bytes that 4-byte integers cannot hold."""

ROWS: dict[str, dict[str, Any]] = {
    "jobs": {"name": "n", "status": "running", "priority": 0, "iters": 8, "job_dir": "/j", "spec_json": "{}"}
    | {"submitted_at": 1.25, "events_offset": LARGE, "train_loss": float("nan"), "val_loss": float("inf")},
    "attempts": {"job_id": 1, "number": 1, "started_at": 2.5, "settled": True, "self_test": {"equal": True}},
    "progress_points": {"job_id": 1, "attempt": 1, "iteration": 4, "time": 3.0, "train_loss": float("-inf")}
    | {f"{kind}_bytes": LARGE for kind in ("active", "cache", "peak", "footprint", "swap", "limit")}
    | {"tokens": LARGE, "skipped": 0},
    "validations": {"job_id": 1, "attempt": 1, "iteration": 4, "time": 3.0, "kind": "validation", "loss": 0.5}
    | {"examples": 2, "seconds": 0.25, "row_losses": [0.25, 0.75]},
    "checkpoints": {"job_id": 1, "attempt": 1, "iteration": 4, "time": 3.0, "path": "p", "size_bytes": LARGE}
    | {"seconds": 0.25},
    "incidents": {"job_id": 1, "time": 4.0, "code": "c", "text": "t", "evidence": {"text": "a\x00b\ud800"}},
    "facts": {"job_id": 1, "name": "dataset", "attempt": 1, "time": 4.0, "value": {"rows": LARGE}},
    "outbox": {"event": "e", "key": "k", "title": "t", "body": "b", "created_at": 5.0, "services": [], "tags": ["x"]},
    "stages": {"job_id": 1, "decided_at": 6.0, "content": {"first_example": 8}},
    "fits": {"key": "k", "fits": True, "peak_bytes": LARGE, "job_id": 1, "measured_at": 7.0},
    "dependencies": {"job_id": 1, "on_job_id": 1, "any_end": False},
    "queue": {"id": 2, "paused_at": 8.0, "because": "b"},
}


@pytest.fixture
def database(postgres_cluster: Cluster) -> str:
    """A database that has the newest revision."""
    name = postgres_cluster.new_database()
    with transaction(postgres_cluster, name) as connection:
        upgrade(connection)
    return name


@pytest.fixture
def engine(postgres_cluster: Cluster, database: str) -> Iterator[Engine]:
    """An engine for that database."""
    engine = create_engine(postgres_cluster.url(database))
    yield engine
    engine.dispose()


@contextmanager
def transaction(cluster: Cluster, database: str) -> Iterator[Connection]:
    """Open a database for one transaction."""
    engine = create_engine(cluster.url(database))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def test_every_table_keeps_a_row(engine: Engine) -> None:
    assert set(ROWS) == set(metadata.tables)
    for name, row in ROWS.items():
        table = metadata.tables[name]
        with engine.begin() as connection:
            connection.execute(insert(table).values(**row))
        with engine.begin() as connection:
            read = connection.execute(_newest(table)).mappings().one()
        assert {key: repr(read[key]) for key in row} == {key: repr(value) for key, value in row.items()}


def test_only_one_attempt_of_a_job_lives(engine: Engine) -> None:
    attempts = metadata.tables["attempts"]
    with engine.begin() as connection:
        connection.execute(insert(metadata.tables["jobs"]).values(ROWS["jobs"]))
        ended = {"job_id": 1, "started_at": 1.0, "ended_at": 2.0}
        connection.execute(insert(attempts).values([ended | {"number": 1}, ended | {"number": 2}]))
        connection.execute(insert(attempts).values(job_id=1, number=3, started_at=3.0))
    with pytest.raises(IntegrityError, match="ix_attempts_running"), engine.begin() as connection:
        connection.execute(insert(attempts).values(job_id=1, number=4, started_at=4.0))


def test_revision_equals_metadata(postgres_cluster: Cluster, database: str) -> None:
    other = postgres_cluster.new_database()
    with transaction(postgres_cluster, other) as connection:
        create_all(connection, MIGRATIONS.newest)
    assert postgres_cluster.schema(database) == postgres_cluster.schema(other)


def test_failed_revision_changes_nothing(postgres_cluster: Cluster) -> None:
    name = postgres_cluster.new_database()
    with transaction(postgres_cluster, name) as connection:
        connection.exec_driver_sql("CREATE TABLE stages (mine integer)")
    before = postgres_cluster.schema(name)
    with pytest.raises(ProgrammingError, match="stages"), transaction(postgres_cluster, name) as connection:
        upgrade(connection)
    assert postgres_cluster.schema(name) == before


def _newest(table: Table[Any]) -> Any:
    keys = [column.desc() for column in table.primary_key]
    return select(table).order_by(*keys).limit(1)
