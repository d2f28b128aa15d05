"""events.jsonl: the trainer appends each event as one line with one write; readers continue from an offset.

If a crash tears a line, the next writer starts a new line, and readers skip the torn one.
The log of an ended job is compressed to events.jsonl.gz. Offsets always refer to the uncompressed log.
"""

from __future__ import annotations

import gzip
import os
import shutil
import threading
import time
import zlib
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

from jobs.model.errors import EventInvalid
from jobs.model.events import EndedEvent, Event, EventValue, from_line, to_line, value_of
from workers.files.atomic import fsync_file

LONGEST_READ = 4 << 20
"""Bytes of one read; the next call reads the rest."""

_ENDED_WITHIN = 1 << 20  # bytes at the end of the log that contain the `ended` event


class EventLog:
    """The writing end, used by one trainer and its heartbeat thread."""

    def __init__(self, path: Path, attempt: int) -> None:
        """Open events.jsonl for one attempt, from 1."""
        self._attempt = attempt
        self._seq = 0
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        size = os.fstat(self._file).st_size
        if size and os.pread(self._file, 1, size - 1) != b"\n":  # a crash tore the last line
            os.write(self._file, b"\n")

    def append(self, value: EventValue) -> Event:
        """Write one event; it is in the file when this returns."""
        data = value.to_data()
        with self._lock:
            self._seq += 1
            awake = time.monotonic()
            event = Event(
                seq=self._seq, time=time.time(), awake=awake, attempt=self._attempt, kind=value.kind, data=data
            )
            line = to_line(event)
            while line:
                line = line[os.write(self._file, line) :]
            self._last = awake
            return event

    def quiet_for(self) -> float:
        """Return the seconds since the last line, on the clock that stops in sleep."""
        return time.monotonic() - self._last

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


class Read(NamedTuple):
    """The result of one read."""

    events: list[Event]
    unreadable: list[str]  # errors of complete lines that are not events
    offset: int  # bytes; where the next read starts


def lines(path: Path, offset: int) -> tuple[list[bytes], int]:
    """Return the complete lines from `offset` on without parsing them, and the next offset; see `read`."""
    chunk = _chunk(path, offset)
    complete = chunk[: chunk.rfind(b"\n") + 1]
    return complete.splitlines(), offset + len(complete)


def read(path: Path, offset: int) -> Read:
    """Read the complete lines of events.jsonl from `offset` (bytes) on; an incomplete last one is left for later.

    If only its compressed form exists, that is read, or EventInvalid raised if it is damaged. A missing log is empty.
    """
    complete, after = lines(path, offset)
    events, unreadable = [], []
    for line in complete:
        try:
            if line.strip():
                events.append(from_line(line))
        except EventInvalid as error:
            unreadable.append(str(error))
    return Read(events, unreadable, after)


def _chunk(path: Path, offset: int) -> bytes:
    for form in (path, packed(path)) * 2:  # another process may unpack the log between the two checks
        try:
            with gzip.open(form) if form.suffix == ".gz" else form.open("rb") as file:
                file.seek(offset)
                chunk = file.read(LONGEST_READ)
                if b"\n" not in chunk and len(chunk) == LONGEST_READ:
                    chunk += file.readline()
                return bytes(chunk)
        except FileNotFoundError:
            continue
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise EventInvalid(f"{form} is damaged: {error}; the store keeps the events it read before") from error
    return b""


def packed(path: Path) -> Path:
    """Return the path of the compressed form of a log."""
    return path.with_name(f"{path.name}.gz")


def pack(path: Path) -> None:
    """Compress the log of an ended job. After a kill at any moment, and after an error, one complete form exists."""
    if not path.exists():
        return
    partial = path.with_name(f".{path.name}.gz.partial")
    with path.open("rb") as source, _created(partial) as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as target:
        shutil.copyfileobj(source, target)
    fsync_file(partial)
    partial.replace(packed(path))
    fsync_file(path.parent)
    path.unlink()


def unpack(path: Path) -> None:
    """Replace the compressed form by the plain one, so that a trainer can append; EventInvalid if it is damaged."""
    form = packed(path)
    if not path.exists() and form.exists():
        partial = path.with_name(f".{path.name}.partial")
        try:
            with gzip.open(form) as source, _created(partial) as target:
                shutil.copyfileobj(source, target)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            partial.unlink(missing_ok=True)
            raise EventInvalid(f"{form} is damaged: {error}") from error
        fsync_file(partial)
        partial.replace(path)
        fsync_file(path.parent)
    form.unlink(missing_ok=True)


def ended_event(path: Path, attempt: int) -> EndedEvent | None:
    """Return the `ended` event of an attempt, always its last line; None if it wrote none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _ENDED_WITHIN))
            tail = file.read().splitlines()
    except FileNotFoundError:
        return None
    for line in reversed(tail):
        with suppress(EventInvalid):
            event = from_line(line)
            if event.attempt == attempt:
                value = value_of(event)
                return value if isinstance(value, EndedEvent) else None
    return None


def _created(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
