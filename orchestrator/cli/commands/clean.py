"""prune and clean."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from jobs.model.errors import NotAllowed
from jobs.model.job import Job
from jobs.model.states import ENDED
from orchestrator.cli import args, home_access, output
from orchestrator.cli.args import ALL, FAILED, GROUP, Choice, takes_jobs
from orchestrator.cli.output import json_option
from orchestrator.core.app import App
from orchestrator.formatting import text as fmt
from orchestrator.maintenance import clean as cleaning
from orchestrator.maintenance import prune as tidying
from orchestrator.maintenance.clean import Cleaning
from orchestrator.maintenance.prune import Entry, Tidying

DAY_S = 24 * 3600.0


class _Age(click.ParamType[float]):
    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read 30d, 2w or 12h into seconds."""
        found = re.fullmatch(r"(\d{1,6})([hdw])", str(value))
        if found is None:
            self.fail(f"{value!r} is not an age like 30d, 2w or 12h", param, ctx)
        return int(found[1]) * {"h": 3600.0, "d": DAY_S, "w": 7 * DAY_S}[found[2]]


_dry_run = click.option("--dry-run", is_flag=True, help="Say what would go, and delete nothing.")


@click.command()
@takes_jobs(GROUP, ALL, FAILED, all="Every job.")
@_dry_run
@json_option
def prune(choice: Choice, dry_run: bool, as_json: bool) -> None:
    """Delete the checkpoints that need not stay, and what killed processes left, of jobs in any state.

    The worker does the same after every checkpoint, by the same rule (lq.keep). Says why the rest stays.
    """
    with home_access.opened() as app:
        jobs = args.jobs_to_look_at(app, choice)
        act = tidying.planned if dry_run else tidying.carry_out
        found = [act(app, job) for job in jobs]
        if as_json:
            output.print_json({"dry_run": dry_run, "jobs": [_facts(one) for one in found]})
            return
        for one in found:
            _tell(one, dry_run=dry_run, brief=not choice.words)
        if not choice.words:
            _sum(found, dry_run=dry_run)


@click.command()
@takes_jobs(GROUP, FAILED, group="Those of this group that have ended.")
@click.option("--older-than", metavar="AGE", type=_Age(), help="Ended so long ago: 30d (the default), 2w, 12h.")
@click.option("--keep-adapters", is_flag=True, help="Leave finished adapters and milestones alone.")
@click.option("--yes", is_flag=True, help="Do not ask before an adapter goes that lies nowhere else.")
@_dry_run
@json_option
def clean(
    choice: Choice, older_than: float | None, keep_adapters: bool, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Delete what jobs that have ended left: checkpoints, adapters, logs. Of the jobs named, or of all old ones.

    Their rows, reports and job files stay, and so does what was published to an adapter_path.
    """
    with home_access.opened() as app:
        jobs = _ended(app, choice, older_than)
        plans = [plan for job in jobs if (plan := _plan(app, job, keep_adapters, named=bool(choice.words))) is not None]
        plans = [plan for plan in plans if plan.paths]
        if not dry_run:
            _ask(plans, yes=yes or as_json)
            plans = [cleaning.carry_out(app, plan.job, keep_adapters=keep_adapters) for plan in plans]
    if as_json:
        output.print_json({"dry_run": dry_run, "jobs": [_cleaned(plan) for plan in plans]})
        return
    for plan in plans:
        _tell_cleaned(plan)
    freed = fmt.size(sum(plan.bytes for plan in plans))
    verb = "would be cleaned" if dry_run else "cleaned"
    click.echo(f"{_jobs(len(plans))} {verb}, {freed}; reports and job files stay" if plans else "nothing to clean")


def _ended(app: App, choice: Choice, older_than: float | None) -> list[Job]:
    """Return the jobs named, of any age unless one is given; else all old ones."""
    if choice.is_empty:
        age = older_than if older_than is not None else 30 * DAY_S
        return cleaning.old_jobs(app, older_than_s=age, now=time.time()) if home_access.has_store(app) else []
    named = args.jobs_of(app, choice, lambda job: job.status in ENDED, none="no job{of} has ended yet")
    return [job for job in named if older_than is None or time.time() - (job.ended_at or time.time()) >= older_than]


def _plan(app: App, job: Job, keep_adapters: bool, *, named: bool) -> Cleaning | None:
    """Plan for a job; one that stands in the way is passed over with a note, unless it was named."""
    try:
        return cleaning.planned(app, job, keep_adapters=keep_adapters)
    except NotAllowed as error:
        if named:
            raise
        output.note(str(error))
        return None


def _ask(plans: Sequence[Cleaning], *, yes: bool) -> None:
    """Ask a person before what cannot be had again goes; a script has said what it wants."""
    lost = [plan.job for plan in plans if plan.only_adapter]
    if yes or not lost or not sys.stdin.isatty():
        return
    whose = ", ".join(f"{job.id} {job.name}" for job in lost[:5]) + (", ..." if len(lost) > 5 else "")
    text = f"the finished adapter of {_jobs(len(lost))} goes and lies nowhere else ({whose}); --keep-adapters keeps it"
    click.confirm(f"{text}\nDelete?", abort=True)


def _jobs(count: int) -> str:
    return f"{count} job{'s' * (count != 1)}"


def _cleaned(plan: Cleaning) -> dict[str, Any]:
    return {
        "id": plan.job.id,
        "name": plan.job.name,
        "status": plan.job.status.value,
        "ended_at": plan.job.ended_at,
        "bytes": plan.bytes,
        "paths": [str(path) for path in plan.paths],
        "only_adapter": plan.only_adapter,
    }


def _tell_cleaned(plan: Cleaning) -> None:
    age = fmt.short_duration(time.time() - (plan.job.ended_at or time.time()))
    names = ", ".join(path.name for path in plan.paths)
    lost = "; the adapter lies nowhere else" if plan.only_adapter else ""
    click.echo(f"job {plan.job.id} {plan.job.name}, {plan.job.status} {age} ago: {fmt.size(plan.bytes)}: {names}{lost}")


def _facts(one: Tidying) -> dict[str, Any]:
    return {
        "id": one.job.id,
        "name": one.job.name,
        "bytes": one.freed,
        "entries": [_entry(entry) for entry in one.entries],
    }


def _entry(entry: Entry) -> dict[str, Any]:
    return {"path": str(entry.path), "bytes": entry.bytes, "kept": entry.kept, "because": entry.because}


def _tell(one: Tidying, *, dry_run: bool, brief: bool) -> None:
    """Print a job's entries; of many jobs only those that have something that goes."""
    if brief and not one.going:
        return
    if not one.entries:
        click.echo(f"job {one.job.id} {one.job.name}: it has no checkpoints")
        return
    click.echo(f"job {one.job.id} {one.job.name}: {_summary(one, dry_run)}")
    goes = "goes" if dry_run else "gone"
    folder = Path(one.job.job_dir)
    width = max(len(str(entry.path.relative_to(folder))) for entry in one.entries)
    for entry in one.entries:
        word = "stays" if entry.kept else goes
        name = str(entry.path.relative_to(folder))
        click.echo(f"  {word:<5}  {fmt.size(entry.bytes):>7}  {name:<{width}}  {entry.because}")


def _summary(one: Tidying, dry_run: bool) -> str:
    staying = [entry for entry in one.entries if entry.kept]
    stay = f"{len(staying)} stay, {fmt.size(sum(entry.bytes for entry in staying))}"
    if not one.going:
        return f"nothing to delete; {stay}"
    verb, freed = ("would go", "") if dry_run else ("deleted", " freed")
    return f"{len(one.going)} {verb}, {fmt.size(one.freed)}{freed}; {stay}"


def _sum(found: Sequence[Tidying], *, dry_run: bool) -> None:
    entries = [entry for one in found for entry in one.going]
    verb = "would go" if dry_run else "deleted"
    freed = fmt.size(sum(entry.bytes for entry in entries))
    click.echo(f"{len(entries)} {verb} of {len(found)} jobs, {freed}" if entries else "nothing to delete")
