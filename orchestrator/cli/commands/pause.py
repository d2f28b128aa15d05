"""`lq pause` and `lq resume`. A second request changes nothing and succeeds."""

from __future__ import annotations

import time

import click

from jobs.model.errors import NotAllowed
from jobs.model.job import Job
from jobs.model.states import ENDED, Status
from orchestrator.cli import args, home_access
from orchestrator.cli.args import ALL, GROUP, JobSelection, takes_jobs
from orchestrator.cli.output import ChangeOutput, change_options
from orchestrator.cli.views.waiting import waiting_line, waiting_turns
from orchestrator.core.app import App

PAUSE_WAIT_S = 60.0


@click.command()
@takes_jobs(GROUP, ALL, all="Select every job that has not ended.")
@click.option("--queue", "whole_queue", is_flag=True, help="Start no other job; running jobs continue.")
@change_options
def pause(selection: JobSelection, whole_queue: bool, out: ChangeOutput) -> None:
    """Pause jobs until `lq resume`.

    A running job writes a checkpoint and stops; its status is `paused`. A queued or waiting job does not start; its
    status is `held`.
    """
    with home_access.open_app() as app:
        jobs = _selected(app, selection, whole_queue=whole_queue)
        home_access.require_wakeup(app)
        if whole_queue:
            changed = app.store.queue.pause("paused by the user", time.time())
            out.line("queue paused; running jobs continue" if changed else "the queue is already paused")
        pause_jobs(app, jobs, out)
        out.finish(app, app.store.queue.state())


@click.command()
@takes_jobs(GROUP, ALL, all="Select every job that has not ended.")
@click.option("--queue", "whole_queue", is_flag=True, help="Start jobs again after `lq pause --queue`.")
@change_options
def resume(selection: JobSelection, whole_queue: bool, out: ChangeOutput) -> None:
    """Resume paused, held and waiting jobs.

    A paused job continues from its checkpoint. A waiting job starts without waiting longer.
    """
    with home_access.open_app() as app:
        jobs = _selected(app, selection, whole_queue=whole_queue)
        home_access.require_wakeup(app)
        if whole_queue:
            out.line("queue resumed" if app.store.queue.resume() else "the queue is not paused")
        for job in jobs:
            _resume(app, job, out)
        out.line(home_access.wake_worker(app))
        out.finish(app, app.store.queue.state())


def _selected(app: App, selection: JobSelection, *, whole_queue: bool) -> list[Job]:
    return args.select_jobs(
        app,
        selection,
        lambda job: job.status not in ENDED,
        none="every job{of} has already ended",
        or_else=None if whole_queue else "--queue, --group NAME, or --all",
    )


def pause_jobs(app: App, jobs: list[Job], out: ChangeOutput) -> None:
    """Hold the jobs that do not run, then stop the running ones."""
    with app.store.transaction():  # no held job can start in place of a stopped one
        jobs = [app.store.jobs.get(job.id) for job in jobs]
        for job in jobs:
            if job.status is not Status.RUNNING:
                _hold(app, job, out)
    for job in jobs:
        if job.status is Status.RUNNING:
            _stop(app, job, out)


def _hold(app: App, job: Job, out: ChangeOutput) -> None:
    if job.status in (Status.PAUSED, Status.HELD):
        out.line(f"job {job.id} is already {job.status}")
    else:
        app.store.jobs.hold(job.id, "held by the user", time.time())
        out.line(f"job {job.id} held; resume it with: lq resume {job.id}")
    out.changed(job.id)


def _stop(app: App, job: Job, out: ChangeOutput) -> None:
    if not _requested(app, job.id):
        out.line(f"job {job.id} is already paused")
    else:
        out.line(f"job {job.id}: stopping after a checkpoint")
        out.line(home_access.wake_worker(app))  # a job without a worker needs one that adopts it
        after = _until_not_running(app, job.id)
        out.line(f"job {job.id} {after.status}" + (" still" if after.status is Status.RUNNING else ""))
    out.changed(job.id)


def _requested(app: App, job_id: int) -> bool:
    """Request a pause. False if another command has just paused the job."""
    try:
        app.store.jobs.request_stop(job_id, "pause", time.time())
    except NotAllowed:
        if app.store.jobs.get(job_id).status is not Status.PAUSED:
            raise
        return False
    return True


def _until_not_running(app: App, job_id: int) -> Job:
    deadline = time.monotonic() + PAUSE_WAIT_S
    while (job := app.store.jobs.get(job_id)).status is Status.RUNNING and time.monotonic() < deadline:
        time.sleep(0.1)
    return job


def _resume(app: App, job: Job, out: ChangeOutput) -> None:
    if job.status in (Status.QUEUED, Status.RUNNING):
        out.line(f"job {job.id} is already {job.status}")
    else:
        after = app.store.jobs.release(job.id)
        turn = waiting_turns(app, [after]).get(job.id)
        out.line(waiting_line(after, app.store.queue.state(), turn) or f"job {job.id} {after.status}")
    out.changed(job.id)
