"""The file lq.db: connections, transactions, and a library's errors turned into ours. No tables here."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from jobs.model.errors import HomeUnusable, StoreUnusable

BUSY_TIMEOUT_S = 30.0

_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_NO_PLACE = frozenset(
    {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL}
)


class Database:
    """An open store file. Each question to the store is one transaction of it."""

    def __init__(self, path: Path, engine: Engine) -> None:
        """Wrap an engine whose file is at the newest version."""
        self.path = path
        self._engine = engine
        self._writer = engine.execution_options(writes=True)
        self._joined = threading.local()  # the transaction of this thread that the next ones are part of

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Begin a transaction that sees one moment of the store and blocks nobody."""
        if (joined := self._around()) is not None:
            yield joined
            return
        with translated(self.path), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Begin a transaction that holds the write lock from its first moment; an exception undoes all of it."""
        if (joined := self._around()) is not None:
            yield joined
            return
        with translated(self.path), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make one transaction of everything this thread asks and changes inside: all of it, or nothing.

        An exception undoes it all, so none may be caught inside; nobody else sees anything of it before its end.
        """
        with self.writing() as connection:
            self._joined.connection = connection
            try:
                yield
            finally:
                self._joined.connection = None

    def _around(self) -> Connection | None:
        found: Connection | None = getattr(self._joined, "connection", None)
        return found

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


class Records:
    """The base of the classes that read and write one kind of record."""

    def __init__(self, database: Database) -> None:
        """Use the transactions of `database`."""
        self._database = database


def engine_for(path: Path) -> Engine:
    """Return an engine for a store file, which stays untouched until the first transaction."""
    engine = create_engine(
        URL.create("sqlite", database=str(path)), connect_args={"isolation_level": None, "timeout": BUSY_TIMEOUT_S}
    )
    event.listen(engine, "connect", _settle_connection)
    event.listen(engine, "begin", _begin)
    return engine


def _settle_connection(connection: Any, _: object) -> None:
    for pragma in ("foreign_keys=ON", "synchronous=FULL", "fullfsync=ON", "checkpoint_fullfsync=ON"):
        connection.execute(f"PRAGMA {pragma}")  # fullfsync acts on macOS, elsewhere it is ignored


def _begin(connection: Connection) -> None:
    # a transaction that reads and then writes must hold the lock at once: SQLite answers a later upgrade of the
    # lock with "database is locked" and does not wait (field-notes.md)
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def create_file(path: Path) -> None:
    """Make the store's file, 0600, where there is none.

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
    # an existing file is asked about, never opened and closed here: that would drop SQLite's locks in this process
    if not (path.is_file() and os.access(path, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK)):
        raise unwritable(path, "not a file this user may write, or its folder is not")


def unwritable(path: Path, why: str) -> HomeUnusable:
    """Return the error for a home that cannot be written."""
    return HomeUnusable(f"{path}: cannot be written ({why}); check its permissions and free space, or set LQ_HOME")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what SQLite says about the file into an error of ours; let programming errors through.

    Raises:
        StoreUnusable: the file is damaged, or another program keeps it locked.
        HomeUnusable: the file cannot be read or written where it is.
    """
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the low byte is the kind, the rest the detail
        if code in _DAMAGED:
            raise StoreUnusable(
                f"{path}: the store is damaged ({cause}); move it away or put a copy of it (lq.db.v*.bak) in its place"
            ) from error
        if code in _BUSY:
            raise StoreUnusable(
                f"{path}: another program kept the store locked for {BUSY_TIMEOUT_S:.0f} s; close it and try again"
            ) from error
        if code in _NO_PLACE:
            raise unwritable(path, str(cause)) from error
        raise
