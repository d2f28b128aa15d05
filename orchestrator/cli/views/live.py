"""`lq run`: a progress bar on a terminal, one line per event in a pipe."""

from __future__ import annotations

import json
import select
import sys
from typing import TYPE_CHECKING, Any

import click

from jobs.model.events import Kind, PhaseEvent, ProgressEvent, value_of
from jobs.model.states import ENDED, LIVE
from orchestrator.cli import home_access, output
from orchestrator.cli.commands.cancel import cancel_jobs
from orchestrator.cli.commands.pause import pause_jobs
from orchestrator.cli.commands.wait import TIMED_OUT, code_of
from orchestrator.cli.output import ChangeOutput
from orchestrator.cli.views.job_log import (
    JobLog,
    LogFilter,
    json_lines,
    print_log,
    read_batches,
    text_lines,
)
from orchestrator.cli.views.terminal import console_for
from orchestrator.core.app import App
from orchestrator.formatting import text as fmt

if TYPE_CHECKING:
    from rich.progress import Progress

DETACHED = 0
POLL_S = 0.1


def follow(app: App, job_id: int, *, as_json: bool = False) -> int:
    """Show a job until it has ended, and return its exit code. Ctrl-C asks what to do and never stops the job itself.

    With `as_json` it prints the events as JSON, and everything else to stderr.
    """
    try:
        if as_json:
            print_log(read_batches(app, job_id, follow=True), json_lines(LogFilter(), raw=False))
        elif sys.stdout.isatty():
            _show_progress(app, job_id)
        else:
            print_log(read_batches(app, job_id, follow=True), text_lines(app, job_id, LogFilter()))
    except KeyboardInterrupt:
        with output.text_to_stderr(as_json=as_json):
            click.echo()
            return _interrupted(app, job_id)
    with output.text_to_stderr(as_json=as_json):
        return _print_end(app, job_id)


def _interrupted(app: App, job_id: int) -> int:
    """Detach from, pause or cancel the job, as the user answers; detach if there is no terminal."""
    can_ask = sys.stdin.isatty() and sys.stdout.isatty() and app.store.jobs.get(job_id).status in LIVE
    answer = _ask() if can_ask else "d"
    job, out = app.store.jobs.get(job_id), ChangeOutput()
    if job.status in ENDED:  # meanwhile
        return _print_end(app, job_id)
    if answer == "d":
        click.echo(f"job {job_id} continues in the background: lq status · lq logs {job_id} -f · lq cancel {job_id}")
        return DETACHED
    if answer == "p":
        home_access.require_wakeup(app)
        pause_jobs(app, [job], out)
    else:
        cancel_jobs(app, [job], out)
    after = app.store.jobs.get(job_id)
    return code_of(after) if after.status in ENDED else TIMED_OUT


def _ask() -> str:
    """Return d, p or c; d if the user answers nothing or presses Ctrl-C again."""
    try:
        while True:
            answer = _read_line("The job is still running. [d]etach, [p]ause, [c]ancel? [d] ").strip().lower() or "d"
            if any(word.startswith(answer) for word in ("detach", "pause", "cancel")):
                return answer[0]
    except (EOFError, KeyboardInterrupt):
        click.echo()
        return "d"


def _read_line(question: str) -> str:
    """Return the line that the user types.

    `input` would miss a Ctrl-C right before it begins to read, and wait for the next one.

    Raises:
        EOFError: standard input is closed.
    """
    click.echo(question, nl=False)
    while not select.select([sys.stdin], [], [], POLL_S)[0]:
        pass
    typed = sys.stdin.readline()
    if not typed:
        raise EOFError
    return typed


def _print_end(app: App, job_id: int) -> int:
    job = app.store.jobs.get(job_id)
    report = job.dir.report / "report.md"
    click.echo(f"job {job.id} {job.status}: {job.detail}")
    if report.exists():
        click.echo(f"report: {report}")
    return code_of(job)


def _show_progress(app: App, job_id: int) -> None:
    job = app.store.jobs.get(job_id)
    with _progress() as progress:
        task, job_log = progress.add_task("waiting", total=job.iters, loss="", speed="", left=""), JobLog(app, job_id)
        for batch in read_batches(app, job_id, follow=True):
            for event in (one.event for one in batch if one.event is not None):
                for entry in job_log.entries(event):
                    if entry.source is not event or event.kind not in (Kind.PROGRESS, Kind.PHASE):
                        progress.console.print(entry.text)
                match value_of(event):
                    case ProgressEvent() as report:
                        figures = _figures(report) | {"left": _time_left(app, job_id)}
                        progress.update(task, description="train", completed=report.iteration, **figures)
                    case PhaseEvent(phase=phase):
                        progress.update(task, description=phase)
            for entry in job_log.new_incidents() if not batch else ():
                progress.console.print(entry.text)


def _time_left(app: App, job_id: int) -> str:
    from orchestrator.estimation.history import RunHistory

    left = RunHistory(app.store).time_left(app.store.jobs.get(job_id), json.loads(app.store.jobs.spec_json(job_id)))
    return f"{fmt.short_duration(left.expected_s)} left" if left is not None else ""


def _progress() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description:<8}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]} {task.fields[speed]}"),
        TextColumn("{task.fields[left]}"),
        console=console_for(sys.stdout),
    )


def _figures(report: ProgressEvent) -> dict[str, Any]:
    if not report.losses:
        return {}
    return {
        "loss": f"loss {fmt.short_loss(sum(report.losses) / len(report.losses))}",
        "speed": f"{fmt.figure(report.it_s)} it/s",
    }
