"""The live view of `lq run`: one bar on a terminal, one line an event elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from jobs.events import Event, Kind, number
from orchestrator.app import App
from orchestrator.cli import output
from orchestrator.cli.event_lines import line
from orchestrator.cli.logs import events_of
from orchestrator.cli.wait import code_of
from workers.job_dir import JobDir

if TYPE_CHECKING:
    from rich.progress import Progress

DETACHED = 0


def follow(app: App, job_id: int) -> int:
    """Show a job until it has ended; return the exit code it stands for. Ctrl-C only stops watching."""
    try:
        if sys.stdout.isatty():
            _with_bar(app, job_id)
        else:
            for event in events_of(app, job_id, follow=True):
                text = line(event)
                if text is not None:
                    click.echo(text)
    except KeyboardInterrupt:
        click.echo(f"\njob {job_id} goes on without you: lq status · lq logs {job_id} -f · lq cancel {job_id}")
        return DETACHED
    return _told_end(app, job_id)


def _told_end(app: App, job_id: int) -> int:
    from pathlib import Path

    job = app.store.job(job_id)
    report = JobDir(Path(job.job_dir)).report / "report.md"
    click.echo(f"job {job.id} {job.status}: {job.detail}")
    if report.exists():
        click.echo(f"report: {report}")
    return code_of(job)


def _with_bar(app: App, job_id: int) -> None:
    job = app.store.job(job_id)
    with _progress() as progress:
        task = progress.add_task("waiting", total=job.iters, loss="", speed="")
        for event in events_of(app, job_id, follow=True):
            if event.kind is Kind.PROGRESS:
                progress.update(task, description="train", completed=event.data["iteration"], **_figures(event))
            elif event.kind is Kind.PHASE:
                progress.update(task, description=str(event.data["phase"]))
            elif (text := line(event)) is not None:
                progress.console.print(text, markup=False, highlight=False)


def _progress() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]} {task.fields[speed]}"),
        TimeRemainingColumn(),
        console=output.console(),
    )


def _figures(event: Event) -> dict[str, Any]:
    losses = [value for item in event.data["losses"] if (value := number(item)) is not None]
    if not losses:
        return {}
    return {
        "loss": f"loss {output.loss(sum(losses) / len(losses))}",
        "speed": f"{output.speed(event.data['it_s'])} it/s",
    }
