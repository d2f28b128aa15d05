"""`lq submit`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs.model.job import Job
from orchestrator.cli import home_access, output
from orchestrator.cli.args import JobFileVerb, files_argument, overwrite_option, set_option
from orchestrator.cli.output import json_option, quiet_option
from orchestrator.formatting import text as fmt

if TYPE_CHECKING:
    from orchestrator.core.app import App
    from orchestrator.submission.submit import Checked

_MAX_LISTED = 24
"""Jobs of a group that are listed."""


@click.command(cls=JobFileVerb)
@files_argument(required=True)
@click.option("--wait", "wait_for_end", is_flag=True, help="Wait until the jobs have ended, and exit as lq wait does.")
@click.option("--dry-run", is_flag=True, help="Check the files and list the jobs, but do not queue them.")
@set_option
@overwrite_option
@quiet_option
@json_option
def submit(
    files: Sequence[Path],
    wait_for_end: bool,
    dry_run: bool,
    sets: Sequence[str],
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Check job files and queue them. If one of them is not valid, nothing is queued.

    FILE is a config of mlx_lm.lora (-c FILE is accepted too), with an optional section lq: (see lq config schema), or
    - for stdin. A matrix in it creates a group of jobs.
    """
    from orchestrator.submission.submit import check_all, enqueue_all

    if quiet and as_json:
        raise click.UsageError("--quiet and --json cannot be used together")
    with home_access.open_app() as app:
        checked = check_all(app, files, overwrite=overwrite, sets=sets)
        if dry_run:
            print_notes(checked)
            _print_dry_run(checked, as_json=as_json)
            return 0
        home_access.require_wakeup(app)
        jobs = enqueue_all(app, checked)
        print_notes(checked)
        print_late(app, jobs, checked)
        worker = home_access.wake_worker(app)
        print_paused_queue(app)
        if as_json:
            _print_json(list(zip(checked, jobs, strict=True)), dry_run=False)
        elif quiet:
            for job in jobs:
                click.echo(job.id)
        else:
            print_queued(app, jobs, checked, worker)
        if not wait_for_end:
            return 0
        from orchestrator.cli.commands.run import wait_for

        return wait_for(app, [job.id for job in jobs], silent=quiet or as_json)


def _print_dry_run(checked: Sequence[Checked], *, as_json: bool) -> None:
    if as_json:
        _print_json([(request, None) for request in checked], dry_run=True)
        return
    for request in checked:
        spec, varied = request.loaded.spec, request.loaded.varied
        settings = ", ".join(f"{key}: {json.dumps(value)}" for key, value in varied.items())
        click.echo(f"{spec.name}: {spec.iters:,} iterations" + (f"; {settings}" if settings else ""))
    click.echo(f"{fmt.counted(len(checked), 'job')}, valid; nothing was queued")


def _print_json(pairs: Sequence[tuple[Checked, Job | None]], *, dry_run: bool) -> None:
    from orchestrator.results.jobs import SubmitResult, SubmittedJob

    jobs = [
        SubmittedJob(
            id=job.id if job is not None else None,
            name=request.loaded.spec.name if job is None else job.name,
            group=request.loaded.spec.lq.group if job is None else job.group_name,
            settings=dict(request.loaded.varied),
            status=job.status if job is not None else None,
            job_dir=job.job_dir if job is not None else None,
        )
        for request, job in pairs
    ]
    output.print_json(SubmitResult(dry_run=dry_run, jobs=jobs))


def print_notes(checked: Sequence[Checked]) -> None:
    """Print the notes on all jobs, each text once."""
    for text in dict.fromkeys(text for request in checked for text in request.notes):
        output.note(text)


def print_late(app: App, jobs: Sequence[Job], checked: Sequence[Checked]) -> None:
    """Print a note for each job that is expected to miss its deadline."""
    if all(request.loaded.spec.lq.deadline is None for request in checked):
        return
    from orchestrator.planning import plan as planning

    ids = {job.id for job in jobs}
    for planned in planning.plan(app, ()).jobs:
        end, due = planned.times.end, planned.deadline
        if planned.id in ids and end is not None and due is not None and end > due:
            when = f"deadline {fmt.upcoming(due)}, ETA {fmt.upcoming(end)}"
            output.note(f"job {planned.id} will miss its deadline: {when}; see: lq plan")


def print_paused_queue(app: App) -> None:
    """Print a note if the queue is paused."""
    queue = app.store.queue.state()
    if queue.paused_at is not None:
        output.note(f"the queue is paused and starts no job: {queue.text}")


def print_queued(
    app: App, jobs: Sequence[Job], checked: Sequence[Checked], worker: str | None, *, hint: bool = True
) -> None:
    """Print the queued jobs: each group in one block, other jobs one per line; and what `wake_worker` returned."""
    reasons, group = _reasons(app, jobs, checked), ""
    labels = {job.id: request.loaded.label for job, request in zip(jobs, checked, strict=True)}
    for name, members in groupby(jobs, key=lambda job: job.group_name if labels[job.id] is not None else None):
        if name is not None:
            group = group or shlex.quote(name)
            _print_group(name, [(job, labels[job.id] or "") for job in members])
            continue
        for job in members:
            click.echo(f"job {job.id} {job.status}: {job.name}, {job.iters:,} iterations; {job.job_dir}")
            if job.id in reasons:
                click.echo(reasons[job.id])
    if worker is not None:
        click.echo(worker)
    if hint and group:
        click.echo(f"next: lq status --group {group} · lq compare --group {group} · lq cancel --group {group}")
    elif hint:
        click.echo(f"next: lq status · lq logs {jobs[-1].id} -f · lq show {jobs[-1].id}")


def _reasons(app: App, jobs: Sequence[Job], checked: Sequence[Checked]) -> dict[int, str]:
    """Return why jobs cannot start yet, by id, if any of them has a constraint."""
    if not any(request.loaded.spec.lq.waits_for_something for request in checked):
        return {}
    from orchestrator.cli.views.waiting import waiting_line, waiting_turns

    turns, queue = waiting_turns(app, jobs), app.store.queue.state()
    return {job.id: text for job in jobs if (text := waiting_line(job, queue, turns)) is not None}


def _print_group(name: str, members: Sequence[tuple[Job, str]]) -> None:
    """Print the jobs of a group in columns, at most `_MAX_LISTED` of them."""
    from rich.columns import Columns
    from rich.constrain import Constrain
    from rich.text import Text

    from orchestrator.cli.views.terminal import UNCUT, Fitted, print_view

    ids = [job.id for job, _ in members]
    click.echo(f"group {name}: {len(ids)} jobs queued, {ids[0]} to {ids[-1]}")
    shown = members[:_MAX_LISTED]
    lines = [Text(f"{job.id:>{len(str(ids[-1]))}} {label}", no_wrap=True) for job, label in shown]
    columns = Columns(lines, padding=(0, 3), column_first=True)
    print_view(Fitted(lambda width: Constrain(columns, 80 if width >= UNCUT else width)))
    if len(members) > len(shown):
        click.echo(f"and {len(members) - len(shown):,} more")
