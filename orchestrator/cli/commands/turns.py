"""pause, resume, hold, release: whose turn it is. Asking twice changes nothing and is no error."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

from jobs.model.errors import NotAllowed
from jobs.model.job import Job
from jobs.model.states import ENDED, LIVE, Status
from orchestrator.cli import args, home_access
from orchestrator.cli.args import ALL, GROUP, Choice, takes_jobs
from orchestrator.cli.output import Voice, takes_voice
from orchestrator.cli.param_types import ONE_JOB, JobRef
from orchestrator.cli.views.waiting import waiting_line, waiting_turns
from orchestrator.core.app import App

PAUSE_WAIT_S = 60.0
_SOME = "--group NAME, or --all"
_QUEUE_OR_SOME = f"--queue, {_SOME}"
_MAY_BE_HELD = (Status.QUEUED, Status.WAITING, Status.HELD)
_IN_LINE = LIVE - {Status.RUNNING}

_queue = click.option("--queue", "whole_queue", is_flag=True, help="The whole queue: no job starts until it resumes.")


@click.command()
@takes_jobs(GROUP, ALL, all="Every job that has not ended.")
@_queue
@takes_voice
def pause(choice: Choice, whole_queue: bool, voice: Voice) -> None:
    """Stop running jobs for now: each writes a checkpoint, and `lq resume` goes on from it, exactly.

    A job that waits for its turn is held instead. With --queue running jobs go on, but no other one starts.
    """
    with home_access.opened() as app:
        jobs = _chosen(app, choice, or_else=None if whole_queue else _QUEUE_OR_SOME)
        home_access.require_bell(app)
        if whole_queue:
            changed = app.store.queue.pause("paused by the user", time.time())
            voice.say("queue paused; jobs that run go on" if changed else "the queue is paused already")
        pause_jobs(app, jobs, voice)
        voice.end(app, queue=_queue_facts(app))


def _queue_facts(app: App) -> dict[str, Any]:
    state = app.store.queue.state()
    return {"paused": state.paused_at is not None, "because": state.because}


def pause_jobs(app: App, jobs: Sequence[Job], voice: Voice) -> None:
    """Hold the jobs that wait for their turn, and have those that run write a checkpoint and stop."""
    with app.store.transaction():  # none of those that wait begins where one that runs makes room
        jobs = [app.store.jobs.get(job.id) for job in jobs]
        for job in jobs:
            if job.status is not Status.RUNNING:
                _pause(app, job, voice)
    for job in jobs:
        if job.status is Status.RUNNING:
            _pause(app, job, voice)


def _pause(app: App, job: Job, voice: Voice) -> None:
    if job.status in (Status.PAUSED, Status.HELD):
        voice.say(f"job {job.id} is {job.status} already")
    elif job.status in (Status.QUEUED, Status.WAITING):
        _hold(app, job, voice)
    elif not _asked(app, job.id):
        voice.say(f"job {job.id} is paused already")
    else:
        voice.say(f"job {job.id}: asked to pause; it writes a checkpoint first")
        voice.say(home_access.wake_worker(app))  # a job whose worker is gone needs one that adopts it
        after = _until_not_running(app, job.id)
        voice.say(f"job {job.id} {after.status}" + ("" if after.status is not Status.RUNNING else " still"))
    voice.done(job.id)


def _asked(app: App, job_id: int) -> bool:
    """Ask a running job to pause; False where it has been paused from another terminal, a moment ago."""
    try:
        app.store.jobs.request_stop(job_id, "pause", time.time())
    except NotAllowed:
        if app.store.jobs.get(job_id).status is not Status.PAUSED:
            raise
        return False
    return True


@click.command()
@takes_jobs(GROUP, ALL, all="Every job that has not ended.")
@_queue
@takes_voice
def resume(choice: Choice, whole_queue: bool, voice: Voice) -> None:
    """Let paused jobs go on from their checkpoints; held ones too. With --queue jobs start again."""
    with home_access.opened() as app:
        jobs = _chosen(app, choice, or_else=None if whole_queue else _QUEUE_OR_SOME)
        home_access.require_bell(app)
        if whole_queue:
            voice.say("queue resumed" if app.store.queue.resume() else "the queue is not paused")
        for job in jobs:
            _let_go_on(app, job, voice)
        voice.say(home_access.wake_worker(app))
        voice.end(app, queue=_queue_facts(app))


@click.command()
@takes_jobs(GROUP, ALL, all="Every job that waits for its turn.")
@takes_voice
def hold(choice: Choice, voice: Voice) -> None:
    """Keep jobs that wait for their turn from running, until they are released.

    Of a group, a range or all jobs those that run, or are paused, stay as they are.
    """
    none = "no job{of} waits for its turn; stop those that run with: lq pause"
    with home_access.opened() as app:
        jobs = args.jobs_of(app, choice, lambda job: job.status in _MAY_BE_HELD, none=none, or_else=_SOME)
        for job in jobs:
            if job.status is Status.HELD:
                voice.say(f"job {job.id} is held already")
            elif job.status is Status.RUNNING:
                raise NotAllowed(f"job {job.id} is running; stop it for now with: lq pause {job.id}")
            else:
                _hold(app, job, voice)
            voice.done(job.id)
        voice.end(app)


@click.command()
@takes_jobs(GROUP, ALL, all="Every job that has not ended.")
@takes_voice
def release(choice: Choice, voice: Voice) -> None:
    """Let held jobs take their turn again; paused ones too."""
    with home_access.opened() as app:
        jobs = _chosen(app, choice, or_else=_SOME)
        home_access.require_bell(app)
        for job in jobs:
            _let_go_on(app, job, voice)
        voice.say(home_access.wake_worker(app))
        voice.end(app)


def _hold(app: App, job: Job, voice: Voice) -> None:
    app.store.jobs.hold(job.id, "held by the user", time.time())
    voice.say(f"job {job.id} held; let it go on with: lq release {job.id}")


def _let_go_on(app: App, job: Job, voice: Voice) -> None:
    if job.status in (Status.QUEUED, Status.RUNNING):
        voice.say(f"job {job.id} is {job.status} already")
    else:
        after = app.store.jobs.release(job.id)
        turn = waiting_turns(app, [after]).get(job.id)
        voice.say(waiting_line(after, app.store.queue.state(), turn) or f"job {job.id} {after.status}")
    voice.done(job.id)


def _until_not_running(app: App, job_id: int) -> Job:
    deadline = time.monotonic() + PAUSE_WAIT_S
    while (job := app.store.jobs.get(job_id)).status is Status.RUNNING and time.monotonic() < deadline:
        time.sleep(0.1)
    return job


def _chosen(app: App, choice: Choice, *, or_else: str | None) -> list[Job]:
    """Return the jobs that are meant; of several at a time those that have not ended."""
    none = "every job{of} has ended already"
    return args.jobs_of(app, choice, lambda job: job.status not in ENDED, none=none, or_else=or_else)


@click.command()
@takes_jobs(GROUP)
@click.option("--first", is_flag=True, help="Before all others.")
@click.option("--last", is_flag=True, help="After all others.")
@click.option("--before", metavar="ID", type=ONE_JOB, help="Right before this job.")
@click.option("--after", metavar="ID", type=ONE_JOB, help="Right after this job.")
@click.option("--priority", metavar="N", type=click.IntRange(-(2**31), 2**31 - 1), help="Higher runs first.")
@takes_voice
def move(
    choice: Choice,
    first: bool,
    last: bool,
    before: JobRef | None,
    after: JobRef | None,
    priority: int | None,
    voice: Voice,
) -> None:
    """Give jobs that wait for their turn another place in the line, in the order named.

    A job takes the priority that holds where it is put. A running job keeps running.
    """
    if sum((first, last, before is not None, after is not None, priority is not None)) != 1:
        raise click.UsageError("say where to: one of --first, --last, --before ID, --after ID, --priority N")
    none = "no job{of} waits for its turn, so none has a place in the line"
    with home_access.opened() as app:
        jobs = args.jobs_of(app, choice, lambda job: job.status in _IN_LINE, none=none, or_else="--group NAME")
        beside = {
            where: home_access.one_job(app, word).id for where, word in (("before", before), ("after", after)) if word
        }
        # each is put right before or after the same place, so that place is passed in the order that keeps theirs
        with app.store.transaction():  # all of them, or none
            for job in reversed(jobs) if first or after is not None else jobs:
                if priority is not None:
                    app.store.queue.set_priority(job.id, priority)
                else:
                    app.store.queue.move(job.id, before=beside.get("before"), after=beside.get("after"), last=last)
        for job in jobs:
            voice.say(f"job {job.id} moved: {_standing(app, job.id)}")
            voice.done(job.id)
        voice.end(app)


def _standing(app: App, job_id: int) -> str:
    """Say where a job stands in the line now."""
    ids = [one.job.id for one in app.store.queue.waiting()]
    now = app.store.jobs.get(job_id)
    place = f"{ids.index(job_id) + 1} of {len(ids)} in the line" if job_id in ids else f"{now.status}"
    return f"{place}, priority {now.priority}"
