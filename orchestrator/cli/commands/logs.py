"""logs."""

from __future__ import annotations

import dataclasses
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs.model.errors import EventInvalid
from jobs.model.events import Event, from_line, to_line
from jobs.model.job import Incident
from jobs.model.states import LIVE
from orchestrator.cli import home_access, output
from orchestrator.cli.output import json_option
from orchestrator.cli.views.job_log import AttemptRunner
from orchestrator.cli.views.job_words import JobWord
from orchestrator.cli.views.since import FORMS, Since
from orchestrator.cli.views.terminal import Paper
from orchestrator.core.app import App
from workers.events import log as event_log
from workers.files.atomic import older_log
from workers.files.job_dir import JobDir

if TYPE_CHECKING:
    from orchestrator.core.file_watch import FileWatch

LOOK_S = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """A line of events.jsonl."""

    raw: bytes
    event: Event | None  # None where it is none


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wanted:
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


EVERYTHING = Wanted(since=None, attempt=None)


@click.command()
@home_access.job_id_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended; across attempts.")
@click.option("-n", "--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines, and what follows.")
@click.option("--since", type=Since(), metavar="TIME", help=f"Only what was told since then: {FORMS}.")
@click.option("--attempt", type=click.IntRange(min=1), metavar="N", help="Only what attempt N said.")
@click.option("--raw", is_flag=True, help="The lines as they stand in events.jsonl.")
@click.option("--output", "own_output", is_flag=True, help="The trainer's own stdout and stderr instead.")
@json_option
def logs(
    job_id: JobWord,
    follow: bool,
    tail: int | None,
    since: float | None,
    attempt: int | None,
    raw: bool,
    own_output: bool,
    as_json: bool,
) -> None:
    """Show what the trainer of job ID says, attempt after attempt; --json prints the events as they are."""
    wanted = Wanted(since=since, attempt=attempt)
    if own_output and (follow or raw or as_json or not wanted.all):
        raise click.UsageError("--output is text of the trainer's, without times; of the others it takes only --tail")
    with home_access.opened() as app:
        job = home_access.one_job(app, job_id)
        if job.cleaned_at is not None:
            output.note(f"job {job.id} was cleaned, and its log is gone; see: lq show {job.id}")
        if own_output:
            _echo_output(JobDir(Path(job.job_dir)), tail)
            return
        told = as_told(app, job.id, wanted) if not raw and not as_json else as_it_stands(wanted, raw=raw)
        print_all(batches(app, job.id, follow=follow), told, tail)


Tell = Callable[[Sequence[Line]], Iterator[str]]
"""Makes of lines, in order, what is printed; of no lines what there is to say when all are read."""


def print_all(found: Iterator[list[Line]], tell: Tell, tail: int | None = None) -> None:
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


def as_it_stands(wanted: Wanted, *, raw: bool) -> Tell:
    """Tell the lines as they are; raw ones even where they are no events."""

    def tell(lines: Sequence[Line]) -> Iterator[str]:
        for one in lines:
            if one.event is None:
                if raw and wanted.all:
                    yield one.raw.decode(errors="replace")
            elif wanted.takes(one.event):
                yield (one.raw if raw else to_line(one.event)).decode(errors="replace").rstrip("\n")

    return tell


def as_told(app: App, job_id: int, wanted: Wanted = EVERYTHING) -> Tell:
    """Tell in words, and between what the trainer says what lq saw and decided."""
    paper, story = Paper.of(sys.stdout), AttemptRunner(app, job_id)

    def tell(lines: Sequence[Line]) -> Iterator[str]:
        events = (one.event for one in lines if one.event is not None)
        for told in chain.from_iterable(map(story.of, events)) if lines else story.so_far():
            if wanted.takes(told.of):
                yield paper.printable(paper.dyed(told.text, told.style))

    return tell


def _echo_output(job_dir: JobDir, tail: int | None) -> None:
    paths = [path for path in (older_log(job_dir.log), job_dir.log) if path.exists()]
    text = "".join(path.read_text(errors="replace") for path in paths)
    if tail is not None:
        text = "".join(text.splitlines(keepends=True)[-tail:] if tail else [])
    click.echo(text, nl=False)


def batches(app: App, job_id: int, *, follow: bool) -> Iterator[list[Line]]:
    """Yield the lines of a job's log as they are read, none each time all that is there was read.

    Args:
        app: where the job is.
        job_id: the job.
        follow: go on until it has ended and everything is read.
    """
    path, offset = JobDir(Path(app.store.jobs.get(job_id).job_dir)).events, 0
    with _bell_of(path) if follow else nullcontext() as bell:
        while True:
            job = app.store.jobs.get(job_id)  # before the look: what it said last is read
            alive = job.status in LIVE
            found, offset = event_log.lines(JobDir(Path(job.job_dir)).events, offset)  # an edit gives it another one
            if found:
                yield [_line(one) for one in found]
                continue
            yield []
            if bell is None or not alive:
                return
            bell.wait(LOOK_S)


def _line(raw: bytes) -> Line:
    with suppress(EventInvalid):
        return Line(raw=raw, event=from_line(raw))
    return Line(raw=raw, event=None)


def _bell_of(path: Path) -> FileWatch:
    from orchestrator.core.file_watch import FileWatch

    return FileWatch(path)
