"""The file lq.db: its connections, its transactions, and the errors of SQLite as errors of lq."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, RowMapping, Select, create_engine, event
from sqlalchemy.exc import DBAPIError

from jobs.model.errors import HomeUnusable, StoreUnusable

BUSY_TIMEOUT_S = 30.0

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_UNUSABLE = frozenset(
    {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL}
)


class Database:
    """An open store file."""

    def __init__(self, path: Path, engine: Engine) -> None:
        self.path = path
        self._engine = engine
        self._writer = engine.execution_options(writes=True)
        self._open = threading.local()  # .connection: the transaction that this thread has begun

    def reading(self) -> AbstractContextManager[Connection]:
        """Begin a transaction that reads one state of the store and blocks no writer."""
        return self._begun(self._engine)

    def writing(self) -> AbstractContextManager[Connection]:
        """Begin a transaction that has the write lock from the start. An exception undoes all of it."""
        return self._begun(self._writer)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make one transaction of everything that this thread reads and writes inside.

        An exception undoes all of it, so none may be caught inside. No other process sees any of it before the end.
        """
        with self.writing() as connection:
            self._open.connection = connection
            try:
                yield
            finally:
                self._open.connection = None

    @contextmanager
    def _begun(self, engine: Engine) -> Iterator[Connection]:
        if (connection := getattr(self._open, "connection", None)) is not None:
            yield connection
            return
        with translated(self.path), engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


class Records:
    """The base of the classes that read and write one kind of record.

    A method raises NoSuchJob if no job has the id, and NotAllowed if the job's state or lease forbids the change.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def _rows(self, query: Select[*tuple[Any, ...]]) -> Sequence[RowMapping]:
        with self._database.reading() as db:
            return db.execute(query).mappings().all()

    def _first(self, query: Select[*tuple[Any, ...]]) -> RowMapping | None:
        with self._database.reading() as db:
            return db.execute(query.limit(1)).mappings().first()

    def _column(self, query: Select[*tuple[Any, ...]]) -> list[Any]:
        with self._database.reading() as db:
            return list(db.execute(query).scalars())


def engine_for(path: Path) -> Engine:
    """Return an engine for a store file. The engine opens the file at the first transaction."""
    engine = create_engine(
        URL.create("sqlite", database=str(path)), connect_args={"isolation_level": None, "timeout": BUSY_TIMEOUT_S}
    )
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin)
    return engine


def _set_pragmas(connection: Any, _: object) -> None:
    for pragma in ("foreign_keys=ON", "synchronous=FULL", "fullfsync=ON", "checkpoint_fullfsync=ON"):
        connection.execute(f"PRAGMA {pragma}")  # fullfsync has an effect on macOS only


def _begin(connection: Connection) -> None:
    # a transaction that reads and then writes must take the write lock at its beginning: SQLite refuses a later
    # upgrade of a read lock with "database is locked", without waiting for the busy timeout
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def create_file(path: Path) -> None:
    """Create the store's file, 0600, if it does not exist.

    Raises:
        HomeUnusable: the folder is missing or cannot be written.
    """
    try:
        if not path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise unwritable(path, error.strerror or str(error)) from error
    # do not open an existing file here: closing it again would drop the locks that SQLite has in this process
    if not (path.is_file() and os.access(path, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK)):
        raise unwritable(path, "you have no permission to write the file or its folder")


def unwritable(path: Path, why: str) -> HomeUnusable:
    """Return the error for a home that cannot be written."""
    return HomeUnusable(f"{path}: cannot be written ({why}); check its permissions and free space, or set LQ_HOME")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise the errors of SQLite about the file as errors of lq; let programming errors through.

    Raises:
        StoreUnusable: the file is damaged, or another program keeps it locked.
        HomeUnusable: the file cannot be read or written.
    """
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary result code
        if code in _DAMAGED:
            raise StoreUnusable(
                f"{path}: the store is damaged ({cause}); move it away or put a copy of it (lq.db.v*.bak) in its place"
            ) from error
        if code in _BUSY:
            raise StoreUnusable(
                f"{path}: another program kept the store locked for {BUSY_TIMEOUT_S:.0f} s; close it and try again"
            ) from error
        if code in _UNUSABLE:
            raise unwritable(path, str(cause)) from error
        raise
