"""cancel and retry."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from jobs.states import Status
from orchestrator.app import App
from orchestrator.cli import reach

CANCEL_WAIT_S = 30.0


@click.command()
@reach.job_ids_argument
def cancel(job_ids: Sequence[int]) -> None:
    """Stop jobs for good: a running one writes a checkpoint first, and `lq retry` would go on from it."""
    with reach.opened() as app:
        for job_id in job_ids:
            reach.one_job(app, job_id)
            job = app.store.cancel(job_id, time.time())
            if job.status is Status.RUNNING:
                click.echo(f"job {job_id}: asked to stop; it writes a checkpoint first")
                _wait_until_cancelled(app, job_id)
            else:
                click.echo(f"job {job_id} cancelled")


def _wait_until_cancelled(app: App, job_id: int) -> None:
    said = reach.wake_worker(app)  # a job whose worker is gone needs one that adopts it
    if said is not None:
        click.echo(said)
    deadline = time.monotonic() + CANCEL_WAIT_S
    while (job := app.store.job(job_id)).status is Status.RUNNING and time.monotonic() < deadline:
        time.sleep(0.1)
    after = "" if job.status is not Status.RUNNING else f" still; follow it with: lq logs {job_id} -f"
    click.echo(f"job {job_id} {job.status}{after}")


@click.command()
@reach.job_ids_argument
def retry(job_ids: Sequence[int]) -> None:
    """Queue failed or cancelled jobs again, under their ids; they go on from their last checkpoint."""
    with reach.opened() as app:
        for job_id in job_ids:
            reach.one_job(app, job_id)
            job = app.store.retry(job_id, time.time())
            click.echo(f"job {job_id} {job.status}; goes on from its last checkpoint")
        said = reach.wake_worker(app)
        if said is not None:
            click.echo(said)
