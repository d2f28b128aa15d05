"""`lq verify`, `lq prune` and `lq clean`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from jobs.model.errors import CheckFailed, NotAllowed
from jobs.model.job import Job
from jobs.model.states import ENDED
from orchestrator.cli import args, home_access, output
from orchestrator.cli.args import AGE, ALL, FAILED, GROUP, JobSelection, takes_jobs
from orchestrator.cli.output import json_option
from orchestrator.core.app import App
from orchestrator.formatting import text as fmt
from orchestrator.maintenance.clean import CleanedJob, clean_job, old_jobs, plan_clean
from orchestrator.maintenance.prune import PrunedJob, plan_prune, prune_job

if TYPE_CHECKING:
    from orchestrator.maintenance.verify import VerifiedFile, VerifiedJob

CLEANED_AFTER_S = 30 * 24 * 3600.0
_MAX_NAME_WIDTH = 60
_MAX_LISTED = 5

_takes_jobs_of_any_status = takes_jobs(GROUP, ALL, FAILED, all="Select every job.")
_dry_run_option = click.option("--dry-run", is_flag=True, help="Show what would be deleted, and delete nothing.")


@click.command()
@_takes_jobs_of_any_status
@click.option("--set-aside", is_flag=True, help="Rename damaged checkpoints to step-N.bad, so that lq ignores them.")
@json_option
def verify(selection: JobSelection, set_aside: bool, as_json: bool) -> None:
    """Verify every file of jobs: checkpoints and adapters by SHA-256, other files by reading them.

    Exit code: 6 if a file is damaged or missing.
    """
    from orchestrator.maintenance.verify import verify_job

    verified: list[tuple[Job, VerifiedJob]] = []
    with home_access.open_app() as app:
        for job in args.select_any_status(app, selection):
            result = verify_job(app, job, set_aside=set_aside)
            verified.append((job, result))
            if not as_json:
                _print_verified(job, result, all_files=bool(selection.refs))
    if as_json:
        output.print_json([result for _, result in verified], under="jobs")
    _require_intact(verified, set_aside=set_aside)


def _print_verified(job: Job, result: VerifiedJob, *, all_files: bool) -> None:
    damaged = result.damaged
    summary = f"{len(damaged)} of {len(result.files)} files damaged" if damaged else f"{len(result.files)} files intact"
    click.echo(f"job {job.id} {job.name}: {summary}")
    shown = result.files if all_files else damaged
    names = [_name(job, file) for file in shown]
    width = min(max(map(len, names), default=0), _MAX_NAME_WIDTH)
    for name, file in zip(names, shown, strict=True):
        because = file.because.replace(f"{file.path}/", "").replace(f"{job.job_dir}/", "")
        click.echo(f"  {'ok' if file.ok else 'DAMAGED':<7}  {name:<{width}}  {because}")


def _name(job: Job, file: VerifiedFile) -> str:
    folder = job.dir.path
    return str(file.path.relative_to(folder)) if file.path.is_relative_to(folder) else str(file.path)


def _require_intact(verified: Sequence[tuple[Job, VerifiedJob]], *, set_aside: bool) -> None:
    """Raise CheckFailed with the first damaged file and what to do."""
    damaged = [(job, file) for job, result in verified for file in result.damaged]
    if not damaged:
        return
    job, first = damaged[0]
    checkpoint_of = next((job.id for job, file in damaged if file.is_checkpoint), None)
    remedy = f"; ignore damaged checkpoints with: lq verify {checkpoint_of} --set-aside"
    total = sum(len(result.files) for _, result in verified)
    raise CheckFailed(
        f"{len(damaged)} of {total} files are damaged or missing, the first: {_name(job, first)} of job {job.id}"
        + (remedy if checkpoint_of and not set_aside else "")
    )


@click.command()
@_takes_jobs_of_any_status
@_dry_run_option
@json_option
def prune(selection: JobSelection, dry_run: bool, as_json: bool) -> None:
    """Delete checkpoints that lq.keep does not keep, and leftovers of killed processes, of jobs in any status.

    The worker does the same after every checkpoint.
    """
    with home_access.open_app() as app:
        jobs = args.select_any_status(app, selection)
        results = [plan_prune(app, job) if dry_run else prune_job(app, job) for job in jobs]
    if as_json:
        from orchestrator.results.machine import PruneResult

        output.print_json(PruneResult(dry_run=dry_run, jobs=results))
        return
    for job, result in zip(jobs, results, strict=True):
        if selection.refs or result.deleted:
            _print_pruned(job, result, dry_run=dry_run)
    if not selection.refs:
        count, freed = sum(len(result.deleted) for result in results), fmt.size(sum(one.bytes for one in results))
        of = f"of {fmt.counted(len(results), 'job')}, {freed}"
        click.echo(f"{count} {_deleted(dry_run)} {of}" if count else "nothing to delete")


def _deleted(dry_run: bool) -> str:
    return "would be deleted" if dry_run else "deleted"


def _print_pruned(job: Job, result: PrunedJob, *, dry_run: bool) -> None:
    if not result.entries:
        click.echo(f"job {job.id} {job.name}: no checkpoints")
        return
    kept = [entry for entry in result.entries if entry.kept]
    deleted = f"{len(result.deleted)} {_deleted(dry_run)}, {fmt.size(result.bytes)}"
    rest = f"{len(kept)} kept, {fmt.size(sum(entry.bytes for entry in kept))}"
    click.echo(f"job {job.id} {job.name}: {deleted if result.deleted else 'nothing to delete'}; {rest}")
    names = [str(entry.path.relative_to(job.dir.path)) for entry in result.entries]
    width = max(map(len, names))
    for name, entry in zip(names, result.entries, strict=True):
        word = "keep" if entry.kept else "delete" if dry_run else "deleted"
        click.echo(f"  {word:<7}  {fmt.size(entry.bytes):>7}  {name:<{width}}  {entry.because}")


@click.command()
@takes_jobs(GROUP, FAILED, group="Select the jobs of a group that have ended.")
@click.option("--older-than", metavar="AGE", type=AGE, help="Select jobs that ended this long ago: 30d, 2w, 12h.")
@click.option("--keep-adapters", is_flag=True, help="Keep finished adapters and milestones.")
@click.option("--yes", is_flag=True, help="Do not ask before the only copy of an adapter is deleted.")
@_dry_run_option
@json_option
def clean(
    selection: JobSelection, older_than: float | None, keep_adapters: bool, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Delete checkpoints, adapters and logs of jobs that have ended, by default those that ended 30 days ago.

    Reports, job files and adapters in an adapter_path are kept.
    """
    with home_access.open_app() as app:
        jobs = {job.id: job for job in _ended(app, selection, older_than)}
        plans = [_planned(app, job, keep_adapters, named=bool(selection.refs)) for job in jobs.values()]
        results = [plan for plan in plans if plan is not None and plan.paths]
        if not dry_run:
            if not yes and not as_json:
                _confirm(results)
            results = [clean_job(app, jobs[plan.id], keep_adapters=keep_adapters) for plan in results]
    if as_json:
        from orchestrator.results.machine import CleanResult

        output.print_json(CleanResult(dry_run=dry_run, jobs=results))
    else:
        _print_cleaned(results, dry_run=dry_run)


def _ended(app: App, selection: JobSelection, older_than: float | None) -> list[Job]:
    """Return the selected jobs of any age unless one is given; without a selection, the old jobs."""
    if selection.is_empty:
        age = older_than if older_than is not None else CLEANED_AFTER_S
        return old_jobs(app, older_than_s=age, now=time.time()) if home_access.has_store(app) else []
    jobs = args.select_jobs(app, selection, lambda job: job.status in ENDED, none="no job{of} has ended yet")
    return [job for job in jobs if older_than is None or time.time() - (job.ended_at or time.time()) >= older_than]


def _planned(app: App, job: Job, keep_adapters: bool, *, named: bool) -> CleanedJob | None:
    """Plan one job. A job that cannot be cleaned is skipped with a note, unless the user named it."""
    try:
        return plan_clean(app, job, keep_adapters=keep_adapters)
    except NotAllowed as error:
        if named:
            raise
        output.note(str(error))
        return None


def _confirm(plans: Sequence[CleanedJob]) -> None:
    """Ask on a terminal before the only copy of an adapter is deleted."""
    lost = [plan for plan in plans if plan.only_adapter]
    if not lost or not sys.stdin.isatty():
        return
    listed = ", ".join(f"{plan.id} {plan.name}" for plan in lost[:_MAX_LISTED])
    listed += ", ..." if len(lost) > _MAX_LISTED else ""
    jobs = f"{fmt.counted(len(lost), 'job')} ({listed})"
    click.echo(f"this deletes the only copy of the adapter of {jobs}; --keep-adapters keeps it")
    click.confirm("Delete?", abort=True)


def _print_cleaned(results: Sequence[CleanedJob], *, dry_run: bool) -> None:
    for job in results:
        age = fmt.short_duration(time.time() - (job.ended_at or time.time()))
        names = ", ".join(path.name for path in job.paths)
        lost = "; the only copy of the adapter" if job.only_adapter else ""
        click.echo(f"job {job.id} {job.name}, {job.status} {age} ago: {fmt.size(job.bytes)}: {names}{lost}")
    freed, verb = fmt.size(sum(job.bytes for job in results)), "would be cleaned" if dry_run else "cleaned"
    jobs = fmt.counted(len(results), "job")
    click.echo(f"{jobs} {verb}, {freed}; reports and job files kept" if results else "nothing to clean")
