"""`lq run` and `lq wait`."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.model.errors import InvalidInput, NoSuchJob
from jobs.model.events import Kind, PhaseEvent, ProgressEvent, value_of
from jobs.model.job import Job
from jobs.model.states import ENDED, LIVE, Status
from orchestrator.cli import args, home_access, output
from orchestrator.cli.args import (
    ALL,
    GROUP,
    JobFileVerb,
    JobSelection,
    overwrite_option,
    seconds_option,
    set_option,
    takes_jobs,
)
from orchestrator.cli.commands.control import cancel_jobs, pause_jobs
from orchestrator.cli.commands.submit import print_late, print_notes, print_paused_queue, print_queued
from orchestrator.cli.output import ChangeOutput, json_option
from orchestrator.core.app import App
from orchestrator.formatting import text as fmt
from orchestrator.worker import control

if TYPE_CHECKING:
    from rich.progress import Progress

DETACHED, SUCCEEDED, FAILED, TIMED_OUT, NO_SUCH_JOB, CANCELLED, SKIPPED = 0, 0, 100, 101, 102, 103, 104
CODES = {
    Status.SUCCEEDED: SUCCEEDED,
    Status.FAILED: FAILED,
    Status.CANCELLED: CANCELLED,
    Status.SKIPPED: SKIPPED,
}
POLL_S = 0.2


@click.command()
@takes_jobs(GROUP, ALL, all="Select every live job (the default).")
@click.option("--any", "any_one", is_flag=True, help="Return when one of the jobs has ended.")
@seconds_option("--timeout", "timeout_s", "Wait at most this many seconds")
@json_option
def wait(selection: JobSelection, any_one: bool, timeout_s: float | None, as_json: bool) -> int:
    """Wait until jobs have ended.

    Exit code: 0 succeeded, 100 failed, 101 timed out, 102 no such job or no live job, 103 cancelled, 104 skipped. With
    several jobs, the first that did not succeed decides.
    """
    with home_access.open_app() as app:
        try:
            ids = _selected_ids(app, selection)
        except NoSuchJob as error:
            click.echo(f"lq: {error}", err=True)
            return NO_SUCH_JOB
        code = wait_for(app, ids, any_one=any_one, timeout_s=timeout_s, silent=as_json)
        if as_json:
            from orchestrator.results.build import from_attributes
            from orchestrator.results.jobs import WaitedJob, WaitResult

            jobs = [app.store.jobs.get(job_id) for job_id in ids]
            waited = [from_attributes(WaitedJob, job, code=CODES.get(job.status)) for job in jobs]
            output.print_json(WaitResult(code=code, jobs=waited))
        return code


def _selected_ids(app: App, selection: JobSelection) -> list[int]:
    """Return the ids to wait for. No live job is an error, because a script would read exit code 0 as success."""
    if selection.is_empty or selection.every:
        ids = [job.id for job in home_access.list_jobs(app) if job.status in LIVE]
    else:
        ids = [job.id for job in args.select_jobs(app, selection, none="no job{of}")]
    if not ids:
        raise NoSuchJob("no job to wait for; see: lq status --all")
    return ids


def wait_for(
    app: App, job_ids: Sequence[int], *, any_one: bool = False, timeout_s: float | None = None, silent: bool = False
) -> int:
    """Wait until all jobs, or any one of them, have ended; print a line for each, and return the exit code."""
    deadline = time.monotonic() + timeout_s if timeout_s is not None else None
    warned, printed = False, set[int]()
    while True:
        jobs = [app.store.jobs.get(job_id) for job_id in job_ids]
        ended = [job for job in jobs if job.status in ENDED]
        for job in ended:
            if job.id not in printed and not silent:
                _echo_if_read(end_line(job))
            printed.add(job.id)
        if len(ended) == len(jobs) or (any_one and ended):
            return next((code for job in ended if (code := CODES[job.status]) != SUCCEEDED), SUCCEEDED)
        if deadline is not None and time.monotonic() >= deadline:
            return TIMED_OUT
        if not warned and control.running(app.home) is None:
            output.note("no worker runs, so no job will start; start one: lq worker start")
            warned = True
        time.sleep(POLL_S)


def _echo_if_read(text: str) -> None:
    """Print a line. If the reader has closed the pipe, only the exit code counts."""
    try:
        click.echo(text)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def end_line(job: Job) -> str:
    """Return how a job ended: job 3 qwen: succeeded after 41 min, verdict OK."""
    from orchestrator.report.stored_verdict import verdict_of

    after = f" after {fmt.duration(job.ended_at - job.started_at)}" if job.ended_at and job.started_at else ""
    verdict = verdict_of(job)
    why = f": {job.reason}" if job.status in (Status.FAILED, Status.SKIPPED) and job.reason else ""
    return f"job {job.id} {job.name}: {job.status}{after}{f', verdict {verdict}' if verdict else ''}{why}"


@click.command(cls=JobFileVerb)
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@set_option
@overwrite_option
@json_option
def run(file: Path, sets: Sequence[str], overwrite: bool, as_json: bool) -> int:
    """Submit FILE and show its progress until the job ends.

    Exit code: 0 succeeded, 100 failed, 103 cancelled. Ctrl-C asks whether to detach from the job, pause it or cancel
    it; without a terminal it detaches. Exit code then: 0 detached, 101 paused. --json prints the events like lq logs -f
    --json, and everything else to stderr.
    """
    from orchestrator.submission.submit import check_all, enqueue_all

    with home_access.open_app() as app:
        checked, *others = check_all(app, [file], overwrite=overwrite, sets=sets)
        if others:
            count = len(others) + 1
            raise InvalidInput(f"{file}: lq run follows one job, but the matrix has {count}; use: lq submit {file}")
        home_access.require_wakeup(app)
        print_notes([checked])
        (job,) = enqueue_all(app, [checked])
        print_late(app, [job], [checked])
        worker = home_access.wake_worker(app)
        print_paused_queue(app)
        with output.text_to_stderr(as_json=as_json):
            print_queued(app, [job], [checked], worker, hint=False)
        return follow(app, job.id, as_json=as_json)


def follow(app: App, job_id: int, *, as_json: bool = False) -> int:
    """Show a job until it has ended, and return its exit code. Ctrl-C asks what to do and never stops the job itself.

    With `as_json` it prints the events as JSON, and everything else to stderr.
    """
    from orchestrator.cli.views import job_log

    try:
        if not as_json and sys.stdout.isatty():
            _show_progress(app, job_id)
        else:
            shown = job_log.LogFilter()
            formatter = job_log.json_lines(shown, raw=False) if as_json else job_log.text_lines(app, job_id, shown)
            job_log.print_log(job_log.read_batches(app, job_id, follow=True), formatter)
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
    return CODES.get(app.store.jobs.get(job_id).status, TIMED_OUT)


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
    """Return the line that the user types. `input` would miss a Ctrl-C right before it begins to read."""
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
    return CODES[job.status]


def _show_progress(app: App, job_id: int) -> None:
    from orchestrator.cli.views.job_log import JobLog, read_batches

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
                        figures = _figures(app, job_id, report)
                        progress.update(task, description="train", completed=report.iteration, **figures)
                    case PhaseEvent(phase=phase):
                        progress.update(task, description=phase)
            for entry in job_log.new_incidents() if not batch else ():
                progress.console.print(entry.text)


def _progress() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from orchestrator.cli.views.terminal import console_for

    figures, left = TextColumn("{task.fields[loss]} {task.fields[speed]}"), TextColumn("{task.fields[left]}")
    columns = (TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), figures, left)
    return Progress(*columns, console=console_for(sys.stdout))


def _figures(app: App, job_id: int, report: ProgressEvent) -> dict[str, Any]:
    from orchestrator.estimation.history import RunHistory

    left = RunHistory(app.store).time_left(app.store.jobs.get(job_id), json.loads(app.store.jobs.spec_json(job_id)))
    figures = {"left": f"{fmt.short_duration(left.expected_s)} left" if left is not None else ""}
    if report.losses:
        loss = sum(report.losses) / len(report.losses)
        figures |= {"loss": f"loss {fmt.short_loss(loss)}", "speed": f"{fmt.figure(report.it_s)} it/s"}
    return figures
