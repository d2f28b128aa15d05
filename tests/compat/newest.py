"""The newest store from nothing, as a list of statements: what all migrations one after the other come to.

A new home is made of that list at once. After a new version: python -m tests.compat.newest
"""

from __future__ import annotations

import dataclasses
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from orchestrator.store.versions import MIGRATIONS, open_engine


def migrated() -> str:
    """Return the statements that make what the migrations make."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lq.db"
        open_engine(path, dataclasses.replace(MIGRATIONS, at_once=None)).dispose()
        return statements(path)


def statements(path: Path) -> str:
    """Return the statements that make a store anew: its schema to the letter, and its rows."""
    with closing(sqlite3.connect(path)) as store:
        found = store.execute("SELECT name, sql FROM sqlite_master WHERE sql NOT NULL ORDER BY rowid")
        made = [sql.strip() for name, sql in found if not name.startswith("sqlite_")]
        assert not [one for one in made if "\n\n" in one]
        rows = [line.rstrip(";") for line in store.iterdump() if line.startswith("INSERT INTO")]
    return "\n\n".join([*made, *rows]) + "\n"


if __name__ == "__main__":
    assert MIGRATIONS.at_once is not None
    MIGRATIONS.at_once.write_text(migrated())
