"""Opening a store file of any version: create a new one, upgrade an older one, refuse the others.

Alembic is imported only to upgrade an older store, because its import is slow: `lq status` and the first `lq submit`
of a new home do without it.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, text

from jobs.model.errors import StoreUnusable
from orchestrator.store.completion import read_only_uri
from orchestrator.store.database import BUSY_TIMEOUT_S, create_file, engine_for, translated, unwritable
from orchestrator.store.schema import create_all
from workers.files.atomic import fsync_file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Migrations:
    """The Alembic revisions that this program can upgrade from and to."""

    location: str  # Alembic's script_location
    revisions: tuple[str, ...]  # oldest first

    @property
    def newest(self) -> str:
        """The version that this program reads and writes."""
        return self.revisions[-1]


MIGRATIONS = Migrations(location="orchestrator.store:migrations", revisions=("0006",))
"""Versions 1 to 5 were never released."""


def open_engine(path: Path, migrations: Migrations = MIGRATIONS) -> Engine:
    """Open the store at `path`; create or upgrade it first if necessary.

    Raises:
        StoreUnusable: the file is damaged, is not a store, or has a version that this program cannot read.
        HomeUnusable: the file cannot be read or written.
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
    """Return the version of a store without changing it; None if the file does not exist or is empty.

    Raises:
        StoreUnusable: the file is damaged, is not a store, or its version is too old.
        HomeUnusable: the file cannot be read.
    """
    if not path.exists():
        return None
    with translated(path), closing(sqlite3.connect(read_only_uri(path), uri=True)) as connection:
        version = _version(lambda query: connection.execute(query).fetchall(), path, MIGRATIONS)
    return None if version is None else int(version)


def upgrade(connection: Connection, migrations: Migrations = MIGRATIONS) -> None:
    """Run the revisions that a database lacks, within the transaction of `connection`. SQLite or PostgreSQL."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", migrations.location)
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


_STAMP = "alembic_version"
"""The table in which Alembic keeps a database's version."""


def _bring_up_to_date(engine: Engine, path: Path, migrations: Migrations) -> None:
    with engine.begin() as connection:
        ready = _usable_version(connection, path, migrations) == migrations.newest and _is_wal(connection)
    if ready:
        return
    with _folder_lock(path):
        _turn_on_wal(path)
        with engine.execution_options(writes=True).begin() as connection:
            version = _usable_version(connection, path, migrations)  # another process may have created or upgraded it
            if version is None:
                create_all(connection, migrations.newest)
            elif version != migrations.newest:
                _copy(path, version)
                upgrade(connection, migrations)


def _version(rows: Callable[[str], Sequence[Sequence[str]]], path: Path, migrations: Migrations) -> str | None:
    """Return the version of a store that is not older than the oldest revision; None for an empty file."""
    tables = {name for (name,) in rows("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        return None
    stamps = [version for (version,) in rows(f"SELECT version_num FROM {_STAMP}")] if _STAMP in tables else []  # noqa: S608
    if not stamps or not stamps[0].isdigit():
        raise StoreUnusable(f"{path}: a database, but not a store of lq; move it away or set LQ_HOME")
    if int(stamps[0]) < int(migrations.revisions[0]):
        raise StoreUnusable(
            f"{path}: written by an earlier lq (version {stamps[0]}, this one reads {migrations.revisions[0]} and "
            f"later); finish or cancel its jobs with that lq, then move {path.parent} away or set LQ_HOME"
        )
    return stamps[0]


def _usable_version(connection: Connection, path: Path, migrations: Migrations) -> str | None:
    version = _version(lambda query: connection.exec_driver_sql(query).all(), path, migrations)
    if version is not None and int(version) > int(migrations.newest):
        raise StoreUnusable(
            f"{path}: written by a newer lq (version {version}, this one knows {migrations.newest}); update lq"
        )
    return version


def _is_wal(connection: Connection) -> bool:
    return connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"


@contextmanager
def _folder_lock(path: Path) -> Iterator[None]:
    """Keep other processes from creating or upgrading a store in this folder.

    SQLite's own lock does not cover the change to WAL: a second process that makes it at the same time gets an error.
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
    # outside SQLAlchemy: the journal mode cannot be changed in a transaction
    with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def _copy(path: Path, version: str) -> None:
    """Copy the store to `lq.db.v<N>.bak`. The caller holds the write lock, so nothing changes before the upgrade."""
    copy = path.with_name(f"{path.name}.v{int(version)}.bak")
    partial = path.with_name(f".{copy.name}.partial")
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))  # VACUUM INTO accepts an empty file
    with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as connection:
        connection.execute("VACUUM INTO ?", (str(partial),))
    fsync_file(partial)
    partial.replace(copy)
    fsync_file(path.parent)
