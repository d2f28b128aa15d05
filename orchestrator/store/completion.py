"""Ids, names and groups of jobs, for shells that complete a command line: read in a moment, and nothing is left behind.

SQLAlchemy would take longer to import than a person waits for a key, and the store itself makes or migrates what it
opens. So this looks with the standard library alone, into a store of any version that has these columns.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from contextlib import closing
from pathlib import Path

BUSY_S = 0.2
"""Whoever waits for a completion waits no longer for a writer."""

MOST = 500
"""Jobs, the newest ones."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Named:
    """A job, as far as one needs it to choose it."""

    id: int
    name: str
    status: str  # a Status code
    group: str | None


def named_jobs(store: Path) -> list[Named]:
    """Return the newest jobs, the newest one first; none where there is no store, or it cannot be read now.

    Args:
        store: the file.
    """
    query = "SELECT id, name, status, group_name FROM jobs ORDER BY id DESC LIMIT ?"
    try:
        with closing(sqlite3.connect(read_only_uri(store), uri=True, timeout=BUSY_S)) as db:
            return [Named(id=row[0], name=row[1], status=row[2], group=row[3]) for row in db.execute(query, [MOST])]
    except (sqlite3.Error, ValueError):
        return []


def read_only_uri(store: Path) -> str:
    """Return the URI that opens a store without leaving files beside it.

    A read-only connection creates the files of the write-ahead log, unless it treats the store as immutable. That is
    safe only if no other process has the store open.
    """
    in_use = store.with_name(f"{store.name}-wal").exists()
    return f"{store.absolute().as_uri()}?mode=ro{'' if in_use else '&immutable=1'}"
