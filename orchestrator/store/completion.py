"""Ids, names, groups and folders of jobs, for shell completion and `lq doctor`.

This module reads the file with the standard library alone: the import of SQLAlchemy takes longer than a user waits
after a key press, and `Store.open` creates or upgrades what it opens.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

BUSY_S = 0.2
"""A completion does not wait longer than this for a writer."""

LIMIT = 500
"""Number of jobs, the newest ones."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedJob:
    """The fields that identify a job for a user."""

    id: int
    name: str
    status: str  # a Status code
    group: str | None


def named_jobs(store: Path) -> list[NamedJob]:
    """Return the newest jobs, the newest first; none if the file does not exist or cannot be read now."""
    query = "SELECT id, name, status, group_name FROM jobs ORDER BY id DESC LIMIT ?"
    return [NamedJob(id=row[0], name=row[1], status=row[2], group=row[3]) for row in _rows(store, query, LIMIT)]


def _rows(store: Path, query: str, *parameters: int) -> list[tuple[Any, ...]]:
    try:
        with closing(sqlite3.connect(read_only_uri(store), uri=True, timeout=BUSY_S)) as db:
            return db.execute(query, parameters).fetchall()
    except (sqlite3.Error, ValueError):
        return []


def read_only_uri(store: Path) -> str:
    """Return the URI that opens a store and leaves no files next to it.

    A read-only connection creates the files of the write-ahead log, unless it treats the store as immutable. That is
    safe only if no other process has the store open.
    """
    in_use = store.with_name(f"{store.name}-wal").exists()
    return f"{store.absolute().as_uri()}?mode=ro{'' if in_use else '&immutable=1'}"
