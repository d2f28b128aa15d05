"""Makes a store of the newest version out of whatever lies there: nothing, an older one, this one; refuses the rest.

Alembic is imported only when there is something to migrate: neither `lq status` nor the first `lq submit` of a new
home waits for it.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, text

from jobs.model.errors import StoreUnusable
from orchestrator.store.database import BUSY_TIMEOUT_S, create_file, engine_for, translated, unwritable
from workers.files.atomic import fsync_file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Migrations:
    """Where the versions are, and their names."""

    location: str  # Alembic's script_location
    revisions: tuple[str, ...]  # oldest first; the last is the newest
    at_once: Path | None = None  # the statements that make the newest from nothing, with an empty line between two

    @property
    def newest(self) -> str:
        """The version this program works with."""
        return self.revisions[-1]


MIGRATIONS = Migrations(
    location="orchestrator.store:migrations",
    revisions=("0001", "0002", "0003", "0004"),
    at_once=Path(__file__).with_name("newest.sql"),
)


def open_engine(path: Path, migrations: Migrations = MIGRATIONS) -> Engine:
    """Open the store at `path`, made or migrated if need be.

    Raises:
        StoreUnusable: damaged, of a newer version, or not a store.
        HomeUnusable: it cannot be read or written where it is.
    """
    create_file(path)
    engine = engine_for(path)
    try:
        with translated(path):
            _bring_up_to_date(engine, path, migrations)
    except BaseException:
        engine.dispose()
        raise
    return engine


def version_of(path: Path) -> int | None:
    """Return the version of a store, which is left as it is; None where there is none yet, or an empty file.

    Raises:
        StoreUnusable: damaged, or not a store.
        HomeUnusable: it cannot be read where it is.
    """
    if not path.exists():
        return None
    with translated(path), closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and "alembic_version" not in tables:
            raise StoreUnusable(f"{path}: a database, but not a store of lq; move it away or set LQ_HOME")
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if tables else None
    return int(row[0]) if row is not None else None


def _bring_up_to_date(engine: Engine, path: Path, migrations: Migrations) -> None:
    with engine.begin() as connection:
        ready = _version(connection, path, migrations) == migrations.newest and _is_wal(connection)
    if ready:
        return
    with _alone(path):
        _turn_on_wal(path)
        with engine.execution_options(writes=True).begin() as connection:
            version = _version(connection, path, migrations)  # somebody else may have been here meanwhile
            if version == migrations.newest:
                return
            if version is not None:
                _copy(path, version)
            elif migrations.at_once is not None:
                _make(connection, migrations.at_once)
                return
            _migrate(connection, migrations)


def _version(connection: Connection, path: Path, migrations: Migrations) -> str | None:
    """Return the store's version, None for an empty file."""
    tables = set(connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars())
    if not tables:
        return None
    if "alembic_version" not in tables:
        raise StoreUnusable(f"{path}: a database, but not a store of lq; move it away or set LQ_HOME")
    version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if version not in migrations.revisions:
        raise StoreUnusable(
            f"{path}: written by a newer lq (version {version}, this one knows {migrations.newest}); update lq"
        )
    return str(version)


def _is_wal(connection: Connection) -> bool:
    return connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes from making or migrating a store in this folder.

    SQLite's own lock is not enough: the change to WAL is refused, not waited for, while another process makes it.
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except OSError as error:
        raise unwritable(path, error.strerror or str(error)) from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _turn_on_wal(path: Path) -> None:
    # outside SQLAlchemy: the journal cannot be changed in a transaction
    with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def _copy(path: Path, version: str) -> None:
    """Copy the store beside itself. Its write lock is held, so the copy is what the migration begins from."""
    copy = path.with_name(f"{path.name}.v{int(version)}.bak")
    partial = path.with_name(f".{copy.name}.partial")
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))  # VACUUM INTO takes an empty file as it is
    with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as connection:
        connection.execute("VACUUM INTO ?", (str(partial),))
    fsync_file(partial)
    partial.replace(copy)
    fsync_file(path.parent)


def _make(connection: Connection, at_once: Path) -> None:
    """Make a new store, to the letter what all versions one after the other come to (tests/compat/newest.py)."""
    for statement in at_once.read_text().split("\n\n"):
        connection.exec_driver_sql(statement)


def _migrate(connection: Connection, migrations: Migrations) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", migrations.location)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
