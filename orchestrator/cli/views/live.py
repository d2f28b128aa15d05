"""The live view of `lq run`: one bar on a terminal, one line an event elsewhere."""

from __future__ import annotations

import json
import select
import sys
from typing import TYPE_CHECKING, Any

import click

from jobs.model.events import Event, Kind, number
from jobs.model.states import ENDED, LIVE
from orchestrator.cli import home_access, output
from orchestrator.cli.commands.cancel import cancel_jobs
from orchestrator.cli.commands.pause import pause_jobs
from orchestrator.cli.commands.wait import TIMED_OUT, code_of
from orchestrator.cli.output import ChangeOutput
from orchestrator.cli.views.job_log import EVERYTHING, JobLog, as_it_stands, as_told, batches, print_all
from orchestrator.core.app import App
from orchestrator.formatting import text as fmt

if TYPE_CHECKING:
    from rich.progress import Progress

DETACHED = 0
LOOK_S = 0.1
"""Between two looks at whether an answer was interrupted."""


def follow(app: App, job_id: int, *, as_json: bool = False) -> int:
    """Show a job until it has ended; return the exit code it stands for. Ctrl-C asks, and never stops it by itself.

    Args:
        app: where the job is.
        job_id: the job.
        as_json: print the events as they are, and all else, a question too, to stderr.
    """
    try:
        if as_json:
            print_all(batches(app, job_id, follow=True), as_it_stands(EVERYTHING, raw=False))
        elif sys.stdout.isatty():
            _with_bar(app, job_id)
        else:
            print_all(batches(app, job_id, follow=True), as_told(app, job_id))
    except KeyboardInterrupt:
        with output.text_to_stderr(as_json=as_json):
            click.echo()
            return _interrupted(app, job_id)
    with output.text_to_stderr(as_json=as_json):
        return _told_end(app, job_id)


def _interrupted(app: App, job_id: int) -> int:
    """Do with the job what the user says; nothing, where nobody can be asked or the answer is another Ctrl-C."""
    can_ask = sys.stdin.isatty() and sys.stdout.isatty() and app.store.jobs.get(job_id).status in LIVE
    stop_request = _asked() if can_ask else "d"
    job, out = app.store.jobs.get(job_id), ChangeOutput()
    if job.status in ENDED:  # while nobody watched
        return _told_end(app, job_id)
    if stop_request == "d":
        click.echo(f"job {job_id} goes on without you: lq status · lq logs {job_id} -f · lq cancel {job_id}")
        return DETACHED
    if stop_request == "p":
        home_access.require_wakeup(app)
        pause_jobs(app, [job], out)
    else:
        cancel_jobs(app, [job], out)
    after = app.store.jobs.get(job_id)
    return code_of(after) if after.status in ENDED else TIMED_OUT


def _asked() -> str:
    """Ask what becomes of the job: d, p or c. Whatever is no answer leaves it training."""
    try:
        while True:
            answer = _line("The job goes on. [d]etach, [p]ause, [c]ancel? [d] ").strip().lower() or "d"
            if any(word.startswith(answer) for word in ("detach", "pause", "cancel")):
                return answer[0]
    except (EOFError, KeyboardInterrupt):
        click.echo()
        return "d"


def _line(question: str) -> str:
    """Return the line that is typed.

    `input` would miss a Ctrl-C that comes right before it begins to read, and wait for the next one.

    Raises:
        EOFError: there is no more to come.
    """
    click.echo(question, nl=False)
    while not select.select([sys.stdin], [], [], LOOK_S)[0]:
        pass
    typed = sys.stdin.readline()
    if not typed:
        raise EOFError
    return typed


def _told_end(app: App, job_id: int) -> int:

    job = app.store.jobs.get(job_id)
    report = job.dir.report / "report.md"
    click.echo(f"job {job.id} {job.status}: {job.detail}")
    if report.exists():
        click.echo(f"report: {report}")
    return code_of(job)


def _with_bar(app: App, job_id: int) -> None:
    job = app.store.jobs.get(job_id)
    with _progress() as progress:
        task = progress.add_task("waiting", total=job.iters, loss="", speed="", left="")
        story = JobLog(app, job_id)
        for batch in batches(app, job_id, follow=True):
            for event in (one.event for one in batch if one.event is not None):
                for told in story.of(event):
                    if told.of is not event or event.kind not in (Kind.PROGRESS, Kind.PHASE):
                        progress.console.print(told.text, markup=False, highlight=False)
                if event.kind is Kind.PROGRESS:
                    figures = _figures(event) | {"left": _left(app, job_id)}
                    progress.update(task, description="train", completed=event.data["iteration"], **figures)
                elif event.kind is Kind.PHASE:
                    progress.update(task, description=str(event.data["phase"]))
            for told in story.so_far() if not batch else ():
                progress.console.print(told.text, markup=False, highlight=False)


def _left(app: App, job_id: int) -> str:
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
        console=output.console(),
    )


def _figures(event: Event) -> dict[str, Any]:
    losses = [value for item in event.data["losses"] if (value := number(item)) is not None]
    if not losses:
        return {}
    return {
        "loss": f"loss {fmt.short_loss(sum(losses) / len(losses))}",
        "speed": f"{fmt.figure(event.data['it_s'])} it/s",
    }
