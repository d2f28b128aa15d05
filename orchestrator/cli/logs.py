"""logs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs.events import Event, to_line
from jobs.states import LIVE
from orchestrator.app import App
from orchestrator.cli import output, reach
from orchestrator.cli.event_lines import line
from orchestrator.cli.job_words import JobWord
from orchestrator.cli.output import json_option
from workers import event_log
from workers.files import older_log
from workers.job_dir import JobDir

if TYPE_CHECKING:
    from orchestrator.watch import FileBell

LOOK_S = 1.0


@click.command()
@reach.job_id_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended; across attempts.")
@click.option("--output", "own_output", is_flag=True, help="The trainer's own stdout and stderr instead.")
@json_option
def logs(job_id: JobWord, follow: bool, own_output: bool, as_json: bool) -> None:
    """Show what the trainer of job ID says, attempt after attempt; --json prints the events as they are."""
    with reach.opened() as app:
        job = reach.one_job(app, job_id)
        job_dir = JobDir(Path(job.job_dir))
        if job.cleaned_at is not None:
            output.note(f"job {job.id} was cleaned, and its log is gone; see: lq show {job.id}")
        if own_output:
            for path in (older_log(job_dir.log), job_dir.log):
                click.echo(path.read_text(errors="replace") if path.exists() else "", nl=False)
            return
        for event in events_of(app, job.id, follow=follow):
            text = to_line(event).decode().rstrip("\n") if as_json else line(event)
            if text is not None:
                click.echo(text)


def events_of(app: App, job_id: int, *, follow: bool) -> Iterator[Event]:
    """Yield a job's events; with `follow` until it has ended and everything is read."""
    path, offset = JobDir(Path(app.store.job(job_id).job_dir)).events, 0
    with _bell_of(path) if follow else nullcontext() as bell:
        while True:
            job = app.store.job(job_id)  # before the look: what it said last is read
            alive = job.status in LIVE
            events, _, offset = event_log.read(JobDir(Path(job.job_dir)).events, offset)  # an edit gives it another one
            yield from events
            if events:
                continue
            if bell is None or not alive:
                return
            bell.wait(LOOK_S)


def _bell_of(path: Path) -> FileBell:
    from orchestrator.watch import FileBell

    return FileBell(path)
