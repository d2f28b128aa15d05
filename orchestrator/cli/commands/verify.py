"""`lq verify`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from jobs.model.errors import CheckFailed
from jobs.model.job import Job
from orchestrator.cli import args, home_access, output
from orchestrator.cli.args import ALL, FAILED, GROUP, JobSelection, takes_jobs
from orchestrator.cli.output import json_option
from orchestrator.maintenance.verify import VerifiedFile, VerifiedJob, verify_job

MAX_NAME_WIDTH = 60


@click.command()
@takes_jobs(GROUP, ALL, FAILED, all="Select every job.")
@click.option("--set-aside", is_flag=True, help="Rename damaged checkpoints to step-N.bad, so that lq ignores them.")
@json_option
def verify(selection: JobSelection, set_aside: bool, as_json: bool) -> None:
    """Verify every file of jobs: checkpoints and adapters by SHA-256, other files by reading them.

    Exit code: 6 if a file is damaged or missing.
    """
    verified: list[tuple[Job, VerifiedJob]] = []
    with home_access.open_app() as app:
        for job in args.select_any_status(app, selection):
            result = verify_job(app, job, set_aside=set_aside)
            verified.append((job, result))
            if not as_json:
                _print_job(job, result, all_files=bool(selection.refs))
    if as_json:
        output.print_json([result for _, result in verified], under="jobs")
    _require_intact(verified, set_aside=set_aside)


def _print_job(job: Job, result: VerifiedJob, *, all_files: bool) -> None:
    damaged = result.damaged
    summary = f"{len(damaged)} of {len(result.files)} files damaged" if damaged else f"{len(result.files)} files intact"
    click.echo(f"job {job.id} {job.name}: {summary}")
    shown = result.files if all_files else damaged
    names = [_name(job, file) for file in shown]
    width = min(max(map(len, names), default=0), MAX_NAME_WIDTH)
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
