"""cancel and retry."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from jobs.errors import NotAllowed
from jobs.job import Job
from jobs.states import ENDED, LEGAL, Status
from orchestrator import duty
from orchestrator.app import App
from orchestrator.cli import reach

CANCEL_WAIT_S = 30.0
RETRIABLE = frozenset(status for status in ENDED if Status.QUEUED in LEGAL[status])


@click.command()
@reach.jobs_or_group
def cancel(job_ids: Sequence[int], group: str | None) -> None:
    """Stop jobs for good: a running one writes a checkpoint first, and `lq retry` would go on from it.

    Of a group those that have ended stay as they are.
    """
    with reach.opened() as app:
        present = reach.chosen_jobs(app, job_ids, group, or_else="--group NAME")
        left = [job for job in present if job.id in job_ids or job.status not in ENDED]
        if not left:
            raise NotAllowed(f"every job of group '{group}' has ended already; there is nothing to cancel")
        for job in left:
            _require_live(job)
        with app.store.together():  # none of them begins while others are cancelled
            after = [app.store.cancel(job.id, time.time()) for job in left]
        asked = [job.id for job in after if job.status is Status.RUNNING]
        for job in after:
            click.echo(
                f"job {job.id}: asked to stop; it writes a checkpoint first"
                if job.id in asked
                else f"job {job.id} cancelled"
            )
        for job_id in asked:
            _wait_until_cancelled(app, job_id)


def _wait_until_cancelled(app: App, job_id: int) -> None:
    said = reach.wake_worker(app)  # a job whose worker is gone needs one that adopts it
    if said is not None:
        click.echo(said)
    if duty.running(app.home) is None:
        click.echo(f"job {job_id} is cancelled as soon as a worker runs")
        return
    deadline = time.monotonic() + CANCEL_WAIT_S
    while (job := app.store.job(job_id)).status is Status.RUNNING and time.monotonic() < deadline:
        time.sleep(0.1)
    after = "" if job.status is not Status.RUNNING else f" still; follow it with: lq logs {job_id} -f"
    click.echo(f"job {job_id} {job.status}{after}")


@click.command()
@reach.jobs_or_group
def retry(job_ids: Sequence[int], group: str | None) -> None:
    """Queue failed or cancelled jobs again, under their ids; they go on from their last checkpoint."""
    with reach.opened() as app:
        chosen = reach.chosen_jobs(app, job_ids, group, or_else="--group NAME")
        present = [job for job in chosen if job.id in job_ids or job.status in RETRIABLE]
        if not present:
            raise NotAllowed(f"no job of group '{group}' has failed or was cancelled; there is nothing to retry")
        for job in present:
            _require_retriable(job)
        reach.require_bell(app)
        for job_id in (job.id for job in present):
            job = app.store.retry(job_id, time.time())
            click.echo(f"job {job_id} {job.status}; goes on from its last checkpoint")
        said = reach.wake_worker(app)
        if said is not None:
            click.echo(said)


def _require_live(job: Job) -> None:
    if job.status in ENDED:
        raise NotAllowed(f"job {job.id} has ended already ({job.status}); there is nothing to cancel")


def _require_retriable(job: Job) -> None:
    if job.status not in RETRIABLE:
        raise NotAllowed(f"job {job.id} is {job.status}; only failed and cancelled jobs can be retried")
