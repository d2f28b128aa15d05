"""wait."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

from jobs.model.errors import NoSuchJob
from jobs.model.job import Job
from jobs.model.states import ENDED, LIVE, Status
from orchestrator.cli import args, home_access, output
from orchestrator.cli.args import ALL, GROUP, Choice, takes_jobs
from orchestrator.cli.output import json_option
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
@takes_jobs(GROUP, ALL, all="Every job that has not ended, as where nothing is named.")
@click.option("--any", "any_one", is_flag=True, help="Until one of them has ended, not all.")
@click.option("--timeout", "timeout_s", metavar="S", type=home_access.SECONDS, help="At most so many seconds.")
@json_option
def wait(choice: Choice, any_one: bool, timeout_s: float | None, as_json: bool) -> int:
    """Wait for jobs to end; for every live one where no ID is given.

    Exit code: 0 succeeded, 100 failed, 101 still running at the time-out, 102 no such job (or none to wait for),
    103 cancelled, 104 skipped.
    Of several jobs the first that did not succeed gives the code.
    """
    with home_access.opened() as app:
        try:
            ids = _asked_for(app, choice)
        except NoSuchJob as error:
            click.echo(f"lq: {error}", err=True)
            return NO_SUCH_JOB
        code = wait_for(app, ids, any_one=any_one, timeout_s=timeout_s)
        if as_json:
            output.print_json({"code": code, "jobs": [_facts(app.store.jobs.get(job_id)) for job_id in ids]})
        return code


def _facts(job: Job) -> dict[str, Any]:
    code = code_of(job) if job.status in ENDED else None
    return {"id": job.id, "name": job.name, "status": job.status.value, "code": code}


def _asked_for(app: App, choice: Choice) -> list[int]:
    """Return the ids to wait for. None at all is not a success: a script would take it for one."""
    if choice.is_empty or choice.every:
        ids = [job.id for job in home_access.all_jobs(app) if job.status in LIVE]
    else:
        ids = [job.id for job in args.jobs_of(app, choice, none="no job{of} is there")]
    if not ids:
        raise NoSuchJob("no job is live, so there is nothing to wait for; see: lq status --all")
    return ids


def wait_for(app: App, job_ids: Sequence[int], *, any_one: bool, timeout_s: float | None) -> int:
    """Wait; return the exit code.

    Args:
        app: where the jobs are.
        job_ids: which.
        any_one: stop at the first that has ended.
        timeout_s: seconds; None waits for ever.
    """
    deadline = time.monotonic() + timeout_s if timeout_s is not None else None
    warned = False
    while True:
        jobs = [app.store.jobs.get(job_id) for job_id in job_ids]
        ended = [job for job in jobs if job.status in ENDED]
        if len(ended) == len(jobs) or (any_one and ended):
            return _code(ended)
        if deadline is not None and time.monotonic() >= deadline:
            return TIMED_OUT
        if not warned and control.running(app.home) is None:
            output.note("no worker runs, so nothing will change; start one: lq worker --detach")
            warned = True
        time.sleep(POLL_S)


def code_of(job: Job) -> int:
    """Return the exit code a job's end stands for."""
    return CODES[job.status]


def _code(ended: Sequence[Job]) -> int:
    return next((code for job in ended if (code := code_of(job)) != SUCCEEDED), SUCCEEDED)
