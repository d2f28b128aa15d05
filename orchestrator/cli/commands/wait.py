"""`lq wait`."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from jobs.model.errors import NoSuchJob
from jobs.model.job import Job
from jobs.model.states import ENDED, LIVE, Status
from orchestrator.cli import args, home_access, output
from orchestrator.cli.args import ALL, GROUP, JobSelection, takes_jobs
from orchestrator.cli.output import json_option
from orchestrator.cli.param_types import SECONDS
from orchestrator.core.app import App
from orchestrator.worker import control

SUCCEEDED, FAILED, TIMED_OUT, NO_SUCH_JOB, CANCELLED, SKIPPED = 0, 100, 101, 102, 103, 104
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
@click.option("--timeout", "timeout_s", metavar="S", type=SECONDS, help="Wait at most this many seconds.")
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
        code = wait_for(app, ids, any_one=any_one, timeout_s=timeout_s)
        if as_json:
            _print_json(code, [app.store.jobs.get(job_id) for job_id in ids])
        return code


def _print_json(code: int, jobs: Sequence[Job]) -> None:
    from orchestrator.results.build import from_attributes
    from orchestrator.results.jobs import WaitedJob, WaitResult

    waited = [from_attributes(WaitedJob, job, code=CODES.get(job.status)) for job in jobs]
    output.print_json(WaitResult(code=code, jobs=waited))


def _selected_ids(app: App, selection: JobSelection) -> list[int]:
    """Return the ids to wait for. No live job is an error, because a script would read exit code 0 as success."""
    if selection.is_empty or selection.every:
        ids = [job.id for job in home_access.list_jobs(app) if job.status in LIVE]
    else:
        ids = [job.id for job in args.select_jobs(app, selection, none="no job{of}")]
    if not ids:
        raise NoSuchJob("no job to wait for; see: lq status --all")
    return ids


def wait_for(app: App, job_ids: Sequence[int], *, any_one: bool, timeout_s: float | None) -> int:
    """Wait until all jobs, or any one of them, have ended; return the exit code.

    Args:
        timeout_s: seconds; None waits without limit.
    """
    deadline = time.monotonic() + timeout_s if timeout_s is not None else None
    warned = False
    while True:
        jobs = [app.store.jobs.get(job_id) for job_id in job_ids]
        ended = [job for job in jobs if job.status in ENDED]
        if len(ended) == len(jobs) or (any_one and ended):
            return next((code for job in ended if (code := code_of(job)) != SUCCEEDED), SUCCEEDED)
        if deadline is not None and time.monotonic() >= deadline:
            return TIMED_OUT
        if not warned and control.running(app.home) is None:
            output.note("no worker runs, so no job will start; start one: lq worker --detach")
            warned = True
        time.sleep(POLL_S)


def code_of(job: Job) -> int:
    """Return the exit code for the end of a job."""
    return CODES[job.status]
