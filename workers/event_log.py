"""events.jsonl: the child appends one line with one write; a reader goes on from a remembered offset.

A line that a crash tore stands alone: the next writer begins on a fresh line, and readers skip it.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from jobs.errors import EventInvalid
from jobs.events import Event, Kind, from_line, to_line

LONGEST_READ = 4 << 20
"""Bytes taken in one read; more is read in the next call."""


_LAST_WORDS_LIE_WITHIN = 1 << 20


class EventLog:
    """The writing end, used by one child and its heartbeat thread."""

    def __init__(self, path: Path, attempt: int) -> None:
        """Open the log for one attempt.

        Args:
            path: events.jsonl.
            attempt: the attempt's number, from 1.
        """
        self._attempt = attempt
        self._seq = 0
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        if _tail_is_torn(self._file):
            os.write(self._file, b"\n")

    def append(self, kind: Kind, **data: Any) -> Event:
        """Write one event; it is in the file when this returns."""
        with self._lock:
            self._seq += 1
            awake = time.monotonic()
            event = Event(seq=self._seq, time=time.time(), awake=awake, attempt=self._attempt, kind=kind, data=data)
            line = to_line(event)
            while line:
                line = line[os.write(self._file, line) :]
            self._last = awake
            return event

    def quiet_for(self) -> float:
        """Seconds since the last line, on the clock that stops in sleep."""
        return time.monotonic() - self._last

    def close(self) -> None:
        """Close the file; what was written stays."""
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
    """What one read found."""

    events: list[Event]
    unreadable: list[str]  # complete lines that are not events
    offset: int  # bytes; where to go on


def read(path: Path, offset: int) -> Read:
    """Read the complete lines from `offset` on; an incomplete last line is left for the next time.

    Args:
        path: events.jsonl; absent means empty.
        offset: bytes already read.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            chunk = file.read(LONGEST_READ)
            if b"\n" not in chunk and len(chunk) == LONGEST_READ:
                chunk += file.readline()
    except FileNotFoundError:
        return Read([], [], offset)
    complete = chunk[: chunk.rfind(b"\n") + 1]
    events, unreadable = [], []
    for line in complete.splitlines():
        try:
            if line.strip():
                events.append(from_line(line))
        except EventInvalid as error:
            unreadable.append(str(error))
    return Read(events, unreadable, offset + len(complete))


def last_words(path: Path, attempt: int) -> Event | None:
    """Return the `ended` event of an attempt, which is always its last line; None where it wrote none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LAST_WORDS_LIE_WITHIN))
            lines = file.read().splitlines()
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        with suppress(EventInvalid):
            event = from_line(line)
            if event.attempt == attempt:
                return event if event.kind is Kind.ENDED else None
    return None


def _tail_is_torn(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
