"""How verbs reach the jobs and the worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from jobs.job import Job
from orchestrator import duty
from orchestrator.app import App


@contextmanager
def opened() -> Iterator[App]:
    """Give the app of this user, and close it."""
    with App.of_this_user() as app:
        yield app


def has_store(app: App) -> bool:
    """Say whether there is anything to read; reading verbs make nothing."""
    return app.home.store.exists()


def all_jobs(app: App, *, every: bool = False) -> list[Job]:
    """Return the jobs to list; none where nothing was ever submitted."""
    return app.store.jobs(all_jobs=every) if has_store(app) else []


def one_job(app: App, job_id: int) -> Job:
    """Return a job.

    Raises:
        NoSuchJob: no job has this id.
    """
    from jobs.errors import NoSuchJob

    if not has_store(app):
        raise NoSuchJob(f"no job {job_id}: nothing was submitted to {app.home.path} yet; see: lq submit --help")
    return app.store.job(job_id)


def wake_worker(app: App) -> str | None:
    """Ring, and start a worker where none runs and settings allow it; return what the person should know."""
    app.doorbell.ring()
    if duty.running(app.home) is not None:
        return None
    if not app.settings().autostart:
        return "no worker runs (autostart is off in settings.yaml); start one: lq worker --detach"
    return f"worker started (pid {duty.start_detached(app.home)})"


job_id_argument = click.argument("job_id", metavar="ID", type=click.IntRange(min=1))
job_ids_argument = click.argument("job_ids", metavar="ID...", type=click.IntRange(min=1), nargs=-1, required=True)
