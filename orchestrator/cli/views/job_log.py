"""What is told of a job, in lines: what its trainer says, and between that what lq saw and decided, each once."""

from __future__ import annotations

import dataclasses
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from itertools import chain, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs.model.errors import EventInvalid
from jobs.model.events import Event, Kind, from_line, to_line
from jobs.model.job import Incident
from jobs.model.states import LIVE
from orchestrator.cli.views.terminal import Paper
from orchestrator.core.app import App
from orchestrator.formatting.events import incident_line, line, style_of, style_of_incident
from workers.events import log as event_log

if TYPE_CHECKING:
    from orchestrator.core.file_watch import FileWatch

LOOK_S = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogLine:
    """A line of events.jsonl."""

    raw: bytes
    event: Event | None  # None where it is none


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogFilter:
    """Which lines of a log are wanted."""

    since: float | None  # unix seconds
    attempt: int | None

    @property
    def all(self) -> bool:
        """Whether every one is."""
        return self.since is None and self.attempt is None

    def takes(self, one: Event | Incident) -> bool:
        """Say whether this one is wanted."""
        soon = self.since is None or one.time >= self.since
        return soon and (self.attempt is None or one.attempt == self.attempt)


EVERYTHING = LogFilter(since=None, attempt=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told:
    """A line, and what it tells of."""

    of: Event | Incident
    text: str
    style: str  # orchestrator/cli/views/terminal.py


class JobLog:
    """A job's story from its beginning.

    What a trainer warns of is an event of its own and, as soon as the worker has read that, an incident of the same
    time; whichever is found first is told, and the other is not.
    """

    def __init__(self, app: App, job_id: int) -> None:
        """Begin with the job's first incident.

        Args:
            app: where the job is.
            job_id: the job.
        """
        self._app, self._job_id = app, job_id
        self._incidents_at: list[float] = []  # times of the incidents that were read
        self._warned_at: set[float] = set()  # times of the events that may come as incidents too

    def of(self, event: Event) -> Iterator[Told]:
        """Yield what an event tells, after what was decided before the attempt that it begins."""
        if event.kind is Kind.STARTED:
            yield from self._incidents(event.time)
        if event.kind in (Kind.WARNING, Kind.SELF_TEST):
            if event.time in self._incidents_at:
                return
            self._warned_at.add(event.time)
        text = line(event)
        if text is not None:
            yield Told(of=event, text=text, style=style_of(event))

    def so_far(self) -> Iterator[Told]:
        """Yield what lq saw and decided since, once all that the trainer has said is told."""
        return self._incidents(None)

    def _incidents(self, before: float | None) -> Iterator[Told]:
        found = self._app.store.incidents.of(self._job_id)[len(self._incidents_at) :]
        due = list(takewhile(lambda one: before is None or one.time < before, found))
        self._incidents_at += [one.time for one in due]
        for one in due:
            if one.time not in self._warned_at:
                yield Told(of=one, text=incident_line(one), style=style_of_incident(one))


Tell = Callable[[Sequence[LogLine]], Iterator[str]]
"""Makes of lines, in order, what is printed; of no lines what there is to say when all are read."""


def print_all(found: Iterator[list[LogLine]], tell: Tell, tail: int | None = None) -> None:
    """Print what is told; of what is there already the last lines only.

    Args:
        found: lines, none where all that is there was found.
        tell: makes them what is printed.
        tail: how many lines of what is there already; None for all.
    """
    last: deque[str] | None = deque(maxlen=tail) if tail is not None else None
    for batch in found:
        texts = tell(batch)
        if last is None:
            for text in texts:
                click.echo(text, color=True)
            continue
        last.extend(texts)
        if not batch:  # all that was there is read
            for text in last:
                click.echo(text, color=True)
            last = None


def as_it_stands(wanted: LogFilter, *, raw: bool) -> Tell:
    """Tell the lines as they are; raw ones even where they are no events."""

    def tell(lines: Sequence[LogLine]) -> Iterator[str]:
        for one in lines:
            if one.event is None:
                if raw and wanted.all:
                    yield one.raw.decode(errors="replace")
            elif wanted.takes(one.event):
                yield (one.raw if raw else to_line(one.event)).decode(errors="replace").rstrip("\n")

    return tell


def as_told(app: App, job_id: int, wanted: LogFilter = EVERYTHING) -> Tell:
    """Tell in words, and between what the trainer says what lq saw and decided."""
    paper, story = Paper.of(sys.stdout), JobLog(app, job_id)

    def tell(lines: Sequence[LogLine]) -> Iterator[str]:
        events = (one.event for one in lines if one.event is not None)
        for told in chain.from_iterable(map(story.of, events)) if lines else story.so_far():
            if wanted.takes(told.of):
                yield paper.printable(paper.dyed(told.text, told.style))

    return tell


def batches(app: App, job_id: int, *, follow: bool) -> Iterator[list[LogLine]]:
    """Yield the lines of a job's log as they are read, none each time all that is there was read.

    Args:
        app: where the job is.
        job_id: the job.
        follow: go on until it has ended and everything is read.
    """
    path, offset = app.store.jobs.get(job_id).dir.events, 0
    with _bell_of(path) if follow else nullcontext() as bell:
        while True:
            job = app.store.jobs.get(job_id)  # before the look: what it said last is read
            alive = job.status in LIVE
            found, offset = event_log.lines(job.dir.events, offset)  # an edit gives it another one
            if found:
                yield [_line(one) for one in found]
                continue
            yield []
            if bell is None or not alive:
                return
            bell.wait(LOOK_S)


def _line(raw: bytes) -> LogLine:
    with suppress(EventInvalid):
        return LogLine(raw=raw, event=from_line(raw))
    return LogLine(raw=raw, event=None)


def _bell_of(path: Path) -> FileWatch:
    from orchestrator.core.file_watch import FileWatch

    return FileWatch(path)
