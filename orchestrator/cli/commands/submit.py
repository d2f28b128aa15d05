"""submit and run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.model.job import Job
from orchestrator.cli import home_access, output
from orchestrator.cli.output import json_option, quiet_option
from orchestrator.formatting import text as fmt

if TYPE_CHECKING:
    from orchestrator.core.app import App
    from orchestrator.submission.submit import Checked

_FILE = click.Path(path_type=Path)
_MOST_LISTED = 24
"""Jobs of a sweep that are listed when it is queued."""

_overwrite = click.option(
    "--overwrite", is_flag=True, help="Let the finished adapter replace what lies in adapter_path now."
)
set_option = click.option(
    "--set",
    "sets",
    metavar="KEY=VALUE",
    multiple=True,
    help="A value in the place of the file's, as in lora_parameters.rank=16; may be repeated.",
)


@click.command()
@click.argument("files", metavar="FILE...", type=_FILE, nargs=-1, required=True)
@click.option("--wait", "wait_for_it", is_flag=True, help="Wait for the jobs to end; exit as lq wait does.")
@click.option("--dry-run", is_flag=True, help="Check everything and list the jobs; queue nothing.")
@set_option
@_overwrite
@quiet_option
@json_option
def submit(
    files: Sequence[Path],
    wait_for_it: bool,
    dry_run: bool,
    sets: Sequence[str],
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> int:
    """Check job files and queue them; nothing is queued if one of them is wrong.

    FILE is what mlx_lm.lora -c takes, with an optional section lq: (see lq config schema), or - for what comes on
    standard input. A matrix in it makes a group of jobs.
    """
    from orchestrator.submission.submit import check_all, enqueue_all

    if quiet and as_json:
        raise click.UsageError("--json tells the ids and more; say --quiet or --json, not both")
    with home_access.opened() as app:
        checked = check_all(app, files, overwrite=overwrite, sets=sets)
        if dry_run:
            _tell_notes(checked)
            _tell_planned(checked, as_json=as_json)
            return 0
        home_access.require_bell(app)
        jobs = enqueue_all(app, checked)
        _tell_notes(checked)
        _tell_late(app, jobs, checked)
        said = home_access.wake_worker(app)
        if as_json:
            told = [_entry(job, one) for job, one in zip(jobs, checked, strict=True)]
            output.print_json({"dry_run": False, "jobs": told})
        elif quiet:
            for job in jobs:
                click.echo(job.id)
        else:
            _tell(app, jobs, checked, said)
        if not wait_for_it:
            return 0
        from orchestrator.cli.commands.wait import wait_for

        return wait_for(app, [job.id for job in jobs], any_one=False, timeout_s=None)


@click.command()
@click.argument("file", metavar="FILE", type=_FILE)
@set_option
@_overwrite
@json_option
def run(file: Path, sets: Sequence[str], overwrite: bool, as_json: bool) -> int:
    """Submit FILE, show live progress, and exit as the job ends: 0 succeeded, 100 failed, 103 cancelled.

    Ctrl-C never stops the job by itself: it asks whether to leave it training, pause it or cancel it. Without a
    terminal to ask on it only stops watching. Exit code then: 0 where the job was left, 101 where it is paused.
    --json prints the events as lq logs -f --json does, and everything else to stderr.
    """
    from jobs.model.errors import InvalidInput
    from orchestrator.cli.views.live import follow
    from orchestrator.submission.submit import check_all, enqueue

    with home_access.opened() as app:
        checked, *others = check_all(app, [file], overwrite=overwrite, sets=sets)
        if others:
            text = f"its matrix makes {len(others) + 1} jobs, and lq run follows one; queue them with: lq submit {file}"
            raise InvalidInput(f"{file}: {text}")
        home_access.require_bell(app)
        _tell_notes([checked])
        job = enqueue(app, checked)
        _tell_late(app, [job], [checked])
        said = home_access.wake_worker(app)
        with output.to_people(as_json=as_json):
            _tell(app, [job], [checked], said, hint=False)
        return follow(app, job.id, as_json=as_json)


def _tell_notes(checked: Sequence[Checked]) -> None:
    """Tell what is to be known, the same of many jobs once."""
    for text in dict.fromkeys(text for one in checked for text in one.notes):
        output.note(text)


def _tell_late(app: App, jobs: Sequence[Job], checked: Sequence[Checked]) -> None:
    """Tell of the deadlines that will not be met, by what earlier runs took; looked at only where there is one."""
    if all(one.loaded.spec.lq.deadline is None for one in checked):
        return
    from orchestrator.planning import plan as planning

    ids = {job.id for job in jobs}
    for one in planning.plan(app, ()).jobs:
        end, due = one.times.end, one.deadline
        if one.id in ids and end is not None and due is not None and end > due:
            when = f"it will be done {fmt.upcoming(end)}, wanted {fmt.upcoming(due)}"
            output.note(f"job {one.id} will miss its deadline: {when}; see: lq plan")


def _entry(job: Job, checked: Checked) -> dict[str, Any]:
    return {
        "id": job.id,
        "name": job.name,
        "group": job.group_name,
        "settings": dict(checked.loaded.varied),
        "status": job.status.value,
        "job_dir": job.job_dir,
    }


def _tell_planned(checked: Sequence[Checked], *, as_json: bool) -> None:
    """List what a submit would queue."""
    if as_json:
        planned: dict[str, Any] = {"id": None, "status": None, "job_dir": None}
        told = [
            {"name": one.loaded.spec.name, "group": one.loaded.spec.lq.group, "settings": dict(one.loaded.varied)}
            for one in checked
        ]
        output.print_json({"dry_run": True, "jobs": [planned | one for one in told]})
        return
    for one in checked:
        spec, settings = one.loaded.spec, _settings(one.loaded.varied)
        click.echo(f"{spec.name}: {spec.iters:,} iterations" + (f"; {settings}" if settings else ""))
    click.echo(f"{len(checked)} {'job' if len(checked) == 1 else 'jobs'}, all right; nothing was queued")


def _settings(varied: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {json.dumps(value)}" for key, value in varied.items())


def _kept(app: App, jobs: Sequence[Job], checked: Sequence[Checked]) -> dict[int, str]:
    """Return what keeps jobs from starting at once, by id; looked at only where one asks for something."""
    if not any(one.loaded.spec.lq.waits_for_something for one in checked):
        return {}
    from orchestrator.cli.views.waiting import waiting_line, waiting_turns

    turns, queue = waiting_turns(app, jobs), app.store.queue.state()
    return {job.id: text for job in jobs if (text := waiting_line(job, queue, turns.get(job.id))) is not None}


def _tell(app: App, jobs: Sequence[Job], checked: Sequence[Checked], said: str | None, *, hint: bool = True) -> None:
    waiting = _kept(app, jobs, checked)
    groups: dict[str, list[tuple[Job, str]]] = {}
    for job, one in zip(jobs, checked, strict=True):
        if one.loaded.label is not None and job.group_name is not None:
            groups.setdefault(job.group_name, []).append((job, one.loaded.label))
    untold = dict(groups)
    for job in jobs:  # in the order of the files
        if job.group_name in groups and any(job is member for member, _ in groups[job.group_name]):
            if (members := untold.pop(job.group_name, None)) is not None:
                _tell_sweep(job.group_name, members)
        else:
            click.echo(f"job {job.id} {job.status}: {job.name}, {job.iters:,} iterations; {job.job_dir}")
            if job.id in waiting:
                click.echo(waiting[job.id])
    if said is not None:
        click.echo(said)
    if hint and groups:
        name = shlex.quote(next(iter(groups)))
        click.echo(f"next: lq status --group {name} · lq compare --group {name} · lq cancel --group {name}")
    elif hint:
        click.echo(f"next: lq status · lq logs {jobs[-1].id} -f · lq show {jobs[-1].id}")


def _tell_sweep(name: str, members: Sequence[tuple[Job, str]]) -> None:
    """Tell of the jobs of a sweep: side by side, and of many the first ones."""
    from rich.columns import Columns
    from rich.text import Text

    ids = [job.id for job, _ in members]
    click.echo(f"group {name}: {len(ids)} jobs queued, {ids[0]} to {ids[-1]}")
    shown = members[:_MOST_LISTED]
    lines = [Text(f"{job.id:>{len(str(ids[-1]))}} {label}", no_wrap=True) for job, label in shown]
    output.console(piped=80).print(Columns(lines, padding=(0, 3), column_first=True))
    if len(members) > len(shown):
        click.echo(f"and {len(members) - len(shown):,} more")
