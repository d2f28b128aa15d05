"""pause, resume, hold, release: whose turn it is. Asking twice changes nothing and is no error."""

from __future__ import annotations

import time
from collections.abc import Sequence

import click

from jobs.errors import NotAllowed
from jobs.job import Job
from jobs.states import ENDED, Status
from orchestrator.app import App
from orchestrator.cli import reach
from orchestrator.cli.waiting import waiting_turns, waits

PAUSE_WAIT_S = 60.0
_QUEUE_OR_GROUP = "--queue, or --group NAME"
_MAY_BE_HELD = (Status.QUEUED, Status.WAITING, Status.HELD)

_queue = click.option("--queue", "whole_queue", is_flag=True, help="The whole queue: no job starts until it resumes.")


@click.command()
@reach.jobs_or_group
@_queue
def pause(job_ids: Sequence[int], group: str | None, whole_queue: bool) -> None:
    """Stop running jobs for now: each writes a checkpoint, and `lq resume` goes on from it, exactly.

    A job that waits for its turn is held instead. With --queue running jobs go on, but no other one starts.
    """
    with reach.opened() as app:
        jobs = _chosen(app, job_ids, group, or_else=None if whole_queue else _QUEUE_OR_GROUP)
        reach.require_bell(app)
        if whole_queue:
            changed = app.store.pause_queue("paused by the user", time.time())
            click.echo("queue paused; jobs that run go on" if changed else "the queue is paused already")
        with app.store.together():  # none of those that wait begins where one that runs makes room
            jobs = [app.store.job(job.id) for job in jobs]
            for job in jobs:
                if job.status is not Status.RUNNING:
                    _pause(app, job)
        for job in jobs:
            if job.status is Status.RUNNING:
                _pause(app, job)


def _pause(app: App, job: Job) -> None:
    if job.status in (Status.PAUSED, Status.HELD):
        click.echo(f"job {job.id} is {job.status} already")
    elif job.status in (Status.QUEUED, Status.WAITING):
        _hold(app, job)
    else:
        if not _asked(app, job.id):
            click.echo(f"job {job.id} is paused already")
            return
        click.echo(f"job {job.id}: asked to pause; it writes a checkpoint first")
        _tell(reach.wake_worker(app))  # a job whose worker is gone needs one that adopts it
        after = _until_not_running(app, job.id)
        click.echo(f"job {job.id} {after.status}" + ("" if after.status is not Status.RUNNING else " still"))


def _asked(app: App, job_id: int) -> bool:
    """Ask a running job to pause; False where it has been paused from another terminal, a moment ago."""
    try:
        app.store.ask(job_id, "pause", time.time())
    except NotAllowed:
        if app.store.job(job_id).status is not Status.PAUSED:
            raise
        return False
    return True


@click.command()
@reach.jobs_or_group
@_queue
def resume(job_ids: Sequence[int], group: str | None, whole_queue: bool) -> None:
    """Let paused jobs go on from their checkpoints; held ones too. With --queue jobs start again."""
    with reach.opened() as app:
        jobs = _chosen(app, job_ids, group, or_else=None if whole_queue else _QUEUE_OR_GROUP)
        reach.require_bell(app)
        if whole_queue:
            click.echo("queue resumed" if app.store.resume_queue() else "the queue is not paused")
        for job in jobs:
            _let_go_on(app, job)
        _tell(reach.wake_worker(app))


@click.command()
@reach.jobs_or_group
def hold(job_ids: Sequence[int], group: str | None) -> None:
    """Keep jobs that wait for their turn from running, until they are released.

    Of a group those that run, or are paused, stay as they are.
    """
    with reach.opened() as app:
        chosen = reach.chosen_jobs(app, job_ids, group, or_else="--group NAME")
        jobs = [job for job in chosen if job.id in job_ids or job.status in _MAY_BE_HELD]
        if not jobs:
            raise NotAllowed(f"no job of group '{group}' waits for its turn; stop those that run with: lq pause")
        for job in jobs:
            if job.status is Status.HELD:
                click.echo(f"job {job.id} is held already")
            elif job.status is Status.RUNNING:
                raise NotAllowed(f"job {job.id} is running; stop it for now with: lq pause {job.id}")
            else:
                _hold(app, job)


@click.command()
@reach.jobs_or_group
def release(job_ids: Sequence[int], group: str | None) -> None:
    """Let held jobs take their turn again; paused ones too."""
    with reach.opened() as app:
        jobs = _chosen(app, job_ids, group, or_else="--group NAME")
        reach.require_bell(app)
        for job in jobs:
            _let_go_on(app, job)
        _tell(reach.wake_worker(app))


def _hold(app: App, job: Job) -> None:
    app.store.hold(job.id, "held by the user", time.time())
    click.echo(f"job {job.id} held; let it go on with: lq release {job.id}")


def _let_go_on(app: App, job: Job) -> None:
    if job.status in (Status.QUEUED, Status.RUNNING):
        click.echo(f"job {job.id} is {job.status} already")
        return
    after = app.store.let_go_on(job.id)
    turn = waiting_turns(app, [after]).get(job.id)
    click.echo(waits(after, app.store.queue_state(), turn) or f"job {job.id} {after.status}")


def _until_not_running(app: App, job_id: int) -> Job:
    deadline = time.monotonic() + PAUSE_WAIT_S
    while (job := app.store.job(job_id)).status is Status.RUNNING and time.monotonic() < deadline:
        time.sleep(0.1)
    return job


def _chosen(app: App, job_ids: Sequence[int], group: str | None, *, or_else: str | None) -> list[Job]:
    """Return the jobs that were named; of a group those that have not ended."""
    chosen = reach.chosen_jobs(app, job_ids, group, or_else=or_else)
    jobs = [job for job in chosen if job.id in job_ids or job.status not in ENDED]
    if chosen and not jobs:
        raise NotAllowed(f"every job of group '{group}' has ended already")
    return jobs


def _tell(said: str | None) -> None:
    if said is not None:
        click.echo(said)


@click.command()
@reach.job_ids_argument
@click.option("--first", is_flag=True, help="Before all others.")
@click.option("--last", is_flag=True, help="After all others.")
@click.option("--before", metavar="ID", type=reach.JOB_ID, help="Right before this job.")
@click.option("--after", metavar="ID", type=reach.JOB_ID, help="Right after this job.")
@click.option("--priority", metavar="N", type=click.IntRange(-(2**31), 2**31 - 1), help="Higher runs first.")
def move(
    job_ids: Sequence[int], first: bool, last: bool, before: int | None, after: int | None, priority: int | None
) -> None:
    """Give jobs that wait for their turn another place in the line, in the order named.

    A job takes the priority that holds where it is put. A running job keeps running.
    """
    if sum((first, last, before is not None, after is not None, priority is not None)) != 1:
        raise click.UsageError("say where to: one of --first, --last, --before ID, --after ID, --priority N")
    with reach.opened() as app:
        jobs = reach.named_jobs(app, job_ids)
        for beside in (before, after):
            if beside is not None:
                reach.one_job(app, beside)
        # each is put right before or after the same place, so that place is passed in the order that keeps theirs
        for job in reversed(jobs) if first or after is not None else jobs:
            if priority is not None:
                app.store.set_priority(job.id, priority)
            else:
                app.store.move(job.id, before=before, after=after, last=last)
        for job in jobs:
            click.echo(f"job {job.id} moved: {_standing(app, job.id)}")


def _standing(app: App, job_id: int) -> str:
    """Say where a job stands in the line now."""
    ids = [one.job.id for one in app.store.line()]
    now = app.store.job(job_id)
    place = f"{ids.index(job_id) + 1} of {len(ids)} in the line" if job_id in ids else f"{now.status}"
    return f"{place}, priority {now.priority}"
