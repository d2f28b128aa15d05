"""prune."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from jobs.job import Job
from orchestrator.app import App
from orchestrator.cli import output, reach
from orchestrator.cli.output import json_option
from orchestrator.tidying import Entry, Tidying, carry_out, planned

_dry_run = click.option("--dry-run", is_flag=True, help="Say what would go, and delete nothing.")


@click.command()
@click.argument("job_ids", metavar="[ID...]", type=reach.JOB_ID, nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every job.")
@_dry_run
@json_option
def prune(job_ids: Sequence[int], every: bool, dry_run: bool, as_json: bool) -> None:
    """Delete the checkpoints that need not stay, and what killed processes left, of jobs in any state.

    The worker does the same after every checkpoint, by the same rule (lq.keep). Says why the rest stays.
    """
    with reach.opened() as app:
        jobs = _chosen(app, job_ids, every)
        act = planned if dry_run else carry_out
        found = [act(app, job) for job in jobs]
        if as_json:
            output.print_json({"dry_run": dry_run, "jobs": [_facts(one) for one in found]})
            return
        for one in found:
            _tell(one, dry_run=dry_run, brief=every)
        if every:
            _sum(found, dry_run=dry_run)


def _chosen(app: App, job_ids: Sequence[int], every: bool) -> list[Job]:
    if bool(job_ids) == every:
        raise click.UsageError("name a job, or --all")
    return reach.all_jobs(app, every=True) if every else reach.named_jobs(app, job_ids)


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
        click.echo(f"  {word:<5}  {output.size(entry.bytes):>7}  {name:<{width}}  {entry.because}")


def _summary(one: Tidying, dry_run: bool) -> str:
    staying = [entry for entry in one.entries if entry.kept]
    stay = f"{len(staying)} stay, {output.size(sum(entry.bytes for entry in staying))}"
    if not one.going:
        return f"nothing to delete; {stay}"
    verb, freed = ("would go", "") if dry_run else ("deleted", " freed")
    return f"{len(one.going)} {verb}, {output.size(one.freed)}{freed}; {stay}"


def _sum(found: Sequence[Tidying], *, dry_run: bool) -> None:
    entries = [entry for one in found for entry in one.going]
    verb = "would go" if dry_run else "deleted"
    freed = output.size(sum(entry.bytes for entry in entries))
    click.echo(f"{len(entries)} {verb} of {len(found)} jobs, {freed}" if entries else "nothing to delete")
