"""Makes a store with many finished jobs by copying the rows of one job."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path


def copy_job(store: Path, job_id: int, times: int, *, points: bool = False) -> None:
    """Copy a finished job and its attempts, and with `points` its progress points, in an lq.db that is not open."""
    with closing(sqlite3.connect(store)) as db, db:
        for number in range(1, times + 1):
            _copy(db, "jobs", {"id": job_id}, {"id": job_id + number})
            _copy(db, "attempts", {"job_id": job_id}, {"id": None, "job_id": job_id + number})
            if points:
                _copy(db, "progress_points", {"job_id": job_id}, {"id": None, "job_id": job_id + number})


def _copy(db: sqlite3.Connection, table: str, where: dict[str, int], changed: dict[str, int | None]) -> None:
    columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    chosen = [f":{column}" if column in changed else column for column in columns]
    ((key, value),) = where.items()
    names = ", ".join(columns)
    statement = f"INSERT INTO {table} ({names}) SELECT {', '.join(chosen)} FROM {table} WHERE {key} = {value}"  # noqa: S608
    db.execute(statement, changed)
