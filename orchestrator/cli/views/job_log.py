"""`lq logs`: the events of a job's trainer, and between them the incidents that lq recorded, each once."""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from itertools import chain, takewhile
from typing import TYPE_CHECKING

import click
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from jobs.model.errors import EventInvalid
from jobs.model.events import Event, Kind, from_line, to_line
from jobs.model.job import Incident
from jobs.model.states import LIVE
from orchestrator.cli.views.terminal import console_for, line_styler
from orchestrator.core.app import App
from orchestrator.formatting.events import incident_line, line, style_of, style_of_incident
from workers.events import log as event_log

if TYPE_CHECKING:
    from orchestrator.core.file_watch import FileWatch

if TYPE_CHECKING:
    pass

POLL_S = 1.0
TAIL_BYTES = 1 << 17
"""End of a log that `lq watch` shows."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogLine:
    """A line of events.jsonl."""

    raw: bytes
    event: Event | None  # None if the line is not a valid event


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogFilter:
    """Which events and incidents to show."""

    since: float | None = None  # unix seconds
    attempt: int | None = None
    pattern: re.Pattern[str] | None = None  # searched in each line

    def shows(self, text: str) -> bool:
        """Return whether a line matches the pattern."""
        return self.pattern is None or self.pattern.search(text) is not None

    def matches(self, source: Event | Incident) -> bool:
        """Return whether to show an event or an incident."""
        return source.time >= (self.since or 0.0) and self.attempt in (None, source.attempt)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogEntry:
    """A line of text and its source."""

    source: Event | Incident
    text: str
    style: str


class JobLog:
    """The events and incidents of a job as text.

    A warning of the trainer is an event, and becomes an incident of the same time when the worker reads it. JobLog
    yields the one that it reads first and leaves out the other.
    """

    def __init__(self, app: App, job_id: int) -> None:
        """Begin with the first incident of a job."""
        self._app, self._job_id = app, job_id
        self._incident_times: list[float] = []  # of the incidents read so far
        self._warning_times: set[float] = set()  # of events that may be incidents, too

    def entries(self, event: Event) -> Iterator[LogEntry]:
        """Yield the entry of an event, after the incidents before the attempt that it begins."""
        if event.kind is Kind.STARTED:
            yield from self.new_incidents(event.time)
        if event.kind in (Kind.WARNING, Kind.SELF_TEST):
            if event.time in self._incident_times:
                return
            self._warning_times.add(event.time)
        text = line(event)
        if text is not None:
            yield LogEntry(source=event, text=text, style=style_of(event))

    def new_incidents(self, before: float = math.inf) -> Iterator[LogEntry]:
        """Yield the incidents since the last call, up to a time in unix seconds."""
        unread = self._app.store.incidents.of(self._job_id)[len(self._incident_times) :]
        due = list(takewhile(lambda incident: incident.time < before, unread))
        self._incident_times += [incident.time for incident in due]
        for incident in due:
            if incident.time not in self._warning_times:
                yield LogEntry(source=incident, text=incident_line(incident), style=style_of_incident(incident))


Formatter = Callable[[Sequence[LogLine]], Iterator[str]]
"""Turns lines into text; called with no lines each time all lines have been read."""


def print_log(batches: Iterator[list[LogLine]], formatter: Formatter, tail: int | None = None) -> None:
    """Print batches as they are read; of the lines that are present at first, only the last `tail`."""
    last: deque[str] | None = deque(maxlen=tail) if tail is not None else None
    for batch in batches:
        texts: Iterator[str] | deque[str] = formatter(batch)
        if last is not None:
            last.extend(texts)
            if batch:
                continue
            texts, last = last, None
        for text in texts:
            click.echo(text, color=True)


def json_lines(log_filter: LogFilter, *, raw: bool) -> Formatter:
    """Return a formatter that keeps the events as JSON.

    With `raw` it keeps the lines exactly as they are in the file, invalid ones included.
    """

    def texts(lines: Sequence[LogLine]) -> Iterator[str]:
        shows_all = log_filter.since is None and log_filter.attempt is None
        for one in lines:
            if (raw and shows_all) if one.event is None else log_filter.matches(one.event):
                content = one.raw if raw or one.event is None else to_line(one.event)
                text = content.decode(errors="replace").rstrip("\n")
                if log_filter.shows(text):
                    yield text

    return texts


def text_lines(app: App, job_id: int, log_filter: LogFilter) -> Formatter:
    """Return a formatter that makes text of events and incidents."""
    styled, job_log = line_styler(sys.stdout), JobLog(app, job_id)
    width = console_for(sys.stdout).width

    def texts(lines: Sequence[LogLine]) -> Iterator[str]:
        events = (one.event for one in lines if one.event is not None)
        for entry in chain.from_iterable(map(job_log.entries, events)) if lines else job_log.new_incidents():
            if log_filter.matches(entry.source) and log_filter.shows(entry.text):
                yield "\n".join(styled(part, entry.style) for part in wrapped(entry.text, width))

    return texts


def wrapped(text: str, width: int) -> list[str]:
    """Return a line of the log in lines of at most `width` columns, broken at words and indented below its words."""
    if cell_len(text) <= width:
        return [text]
    indent = min(len(text) - len(text.split("  ", 2)[-1].lstrip()), width // 3)
    lines = Text(text[indent:]).wrap(Console(width=width), width - indent)
    return [(text[:indent] if place == 0 else " " * indent) + line.plain.rstrip() for place, line in enumerate(lines)]


def read_batches(app: App, job_id: int, *, follow: bool) -> Iterator[list[LogLine]]:
    """Yield the lines of a job's log as they are read, and an empty batch each time all lines have been read.

    Ends when all lines have been read, or with `follow` when the job has ended.
    """
    offset = 0
    with _file_watch(app, job_id) if follow else nullcontext() as watch:
        while True:
            job = app.store.jobs.get(job_id)  # before the lines, so that the last ones of a job that ends are read
            # an edit gives the job another folder
            raw_lines, offset = event_log.lines(job.dir.events, offset)
            yield [_parsed(raw) for raw in raw_lines]
            if raw_lines:
                continue
            if watch is None or job.status not in LIVE:
                return
            watch.wait(POLL_S)


def _parsed(raw: bytes) -> LogLine:
    with suppress(EventInvalid):
        return LogLine(raw=raw, event=from_line(raw))
    return LogLine(raw=raw, event=None)


def _file_watch(app: App, job_id: int) -> FileWatch:
    from orchestrator.core.file_watch import FileWatch  # imports watchdog

    return FileWatch(app.store.jobs.get(job_id).dir.events)


def newest_entries(app: App, job_id: int) -> list[LogEntry]:
    """Return the last entries of a log, from its last `TAIL_BYTES`."""
    path = app.store.jobs.get(job_id).dir.events
    size = path.stat().st_size if path.exists() else 0
    raw_lines, _ = event_log.lines(path, max(0, size - TAIL_BYTES))
    job_log = JobLog(app, job_id)
    events = (parsed.event for parsed in map(_parsed, raw_lines) if parsed.event is not None)
    return [*chain.from_iterable(map(job_log.entries, events)), *job_log.new_incidents()]
