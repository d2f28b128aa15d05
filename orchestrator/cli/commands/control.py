"""The verbs that control jobs. A second `lq pause` or `lq resume` changes nothing and succeeds."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

import click

from jobs.model.errors import NotAllowed
from jobs.model.job import Job
from jobs.model.states import ENDED, RETRIABLE, Status
from orchestrator.cli import args, home_access, output
from orchestrator.cli.args import ALL, FAILED, GROUP, JobSelection, set_option, takes_job, takes_jobs
from orchestrator.cli.output import ChangeOutput, change_options
from orchestrator.cli.views.waiting import waiting_line, waiting_turns
from orchestrator.core.app import App
from orchestrator.formatting import text as fmt
from orchestrator.worker import control

PAUSE_WAIT_S, CANCEL_WAIT_S = 60.0, 30.0
_MAX_LISTED = 12
"""Skipped jobs that `lq cancel` lists by id."""

_takes_live_jobs = takes_jobs(GROUP, ALL, all="Select every job that has not ended.")


def _live(app: App, selection: JobSelection, or_else: str | None) -> list[Job]:
    none = "every job{of} has already ended"
    return args.select_jobs(app, selection, lambda job: job.status not in ENDED, none=none, or_else=or_else)


# --- pause and resume ---


@click.command()
@_takes_live_jobs
@click.option("--queue", "whole_queue", is_flag=True, help="Start no other job; running jobs continue.")
@change_options
def pause(selection: JobSelection, whole_queue: bool, out: ChangeOutput) -> None:
    """Pause jobs until `lq resume`.

    A running job writes a checkpoint and stops; its status is `paused`. A queued or waiting job does not start; its
    status is `held`.
    """
    with home_access.open_app() as app:
        jobs = _live(app, selection, None if whole_queue else "--queue, --group NAME or --all")
        home_access.require_wakeup(app)
        if whole_queue:
            changed = app.store.queue.pause("paused by the user", time.time())
            out.line("queue paused; running jobs continue" if changed else "the queue is already paused")
        pause_jobs(app, jobs, out)
        out.finish(app, app.store.queue.state())


@click.command()
@_takes_live_jobs
@click.option("--queue", "whole_queue", is_flag=True, help="Start jobs again after `lq pause --queue`.")
@change_options
def resume(selection: JobSelection, whole_queue: bool, out: ChangeOutput) -> None:
    """Resume paused, held and waiting jobs.

    A paused job continues from its checkpoint. A waiting job starts without waiting longer.
    """
    with home_access.open_app() as app:
        jobs = _live(app, selection, None if whole_queue else "--queue, --group NAME or --all")
        home_access.require_wakeup(app)
        if whole_queue:
            out.line("queue resumed" if app.store.queue.resume() else "the queue is not paused")
        resume_jobs(app, jobs, out)
        out.line(home_access.wake_worker(app))
        out.finish(app, app.store.queue.state())


def pause_jobs(app: App, jobs: Sequence[Job], out: ChangeOutput, *, waits: bool = True) -> None:
    """Hold the jobs that do not run, then stop the running ones; `waits` some time until they have stopped."""
    with app.store.transaction():  # no held job can start in place of a stopped one
        jobs = [app.store.jobs.get(job.id) for job in jobs]
        for job in jobs:
            if job.status is not Status.RUNNING:
                _hold(app, job, out)
    for job in jobs:
        if job.status is Status.RUNNING:
            _stop(app, job, out, waits=waits)


def _hold(app: App, job: Job, out: ChangeOutput) -> None:
    if job.status in (Status.PAUSED, Status.HELD):
        out.line(f"job {job.id} is already {job.status}")
    else:
        app.store.jobs.hold(job.id, "held by the user", time.time())
        out.line(f"job {job.id} held; resume it with: lq resume {job.id}")
    out.changed(job.id)


def _stop(app: App, job: Job, out: ChangeOutput, *, waits: bool) -> None:
    try:
        app.store.jobs.request_stop(job.id, "pause", time.time())
    except NotAllowed:
        if app.store.jobs.get(job.id).status is not Status.PAUSED:
            raise
        out.line(f"job {job.id} is already paused")  # another command has just paused it
    else:
        out.line(f"job {job.id}: stopping after a checkpoint")
        out.line(home_access.wake_worker(app))  # a job without a worker needs one that adopts it
        if waits:
            after = _until_not_running(app, job.id, PAUSE_WAIT_S)
            out.line(f"job {job.id} {after.status}" + (" still" if after.status is Status.RUNNING else ""))
    out.changed(job.id)


def _until_not_running(app: App, job_id: int, timeout_s: float) -> Job:
    deadline = time.monotonic() + timeout_s
    while (job := app.store.jobs.get(job_id)).status is Status.RUNNING and time.monotonic() < deadline:
        time.sleep(0.1)
    return job


def resume_jobs(app: App, jobs: Sequence[Job], out: ChangeOutput) -> None:
    """Return jobs to the queue, and print what each waits for."""
    for job in jobs:
        if job.status in (Status.QUEUED, Status.RUNNING):
            out.line(f"job {job.id} is already {job.status}")
        else:
            after = app.store.jobs.release(job.id)
            turns = waiting_turns(app, [after])
            out.line(waiting_line(after, app.store.queue.state(), turns) or f"job {job.id} {after.status}")
        out.changed(job.id)


# --- cancel and retry ---


@click.command()
@_takes_live_jobs
@change_options
def cancel(selection: JobSelection, out: ChangeOutput) -> None:
    """Cancel jobs. A running job writes a checkpoint first, from which `lq retry` continues."""
    with home_access.open_app() as app:
        jobs = _live(app, selection, "--group NAME or --all")
        _require(jobs, lambda job: job.status not in ENDED, "job {id} has already ended ({status})")
        cancel_jobs(app, jobs, out)
        out.finish(app)


def _require(jobs: Sequence[Job], applies: Callable[[Job], bool], text: str) -> None:
    """Raise NotAllowed if the verb does not apply to a job that was named by itself."""
    for job in jobs:
        if not applies(job):
            raise NotAllowed(text.format(id=job.id, status=job.status))


def cancel_jobs(app: App, jobs: Sequence[Job], out: ChangeOutput, *, waits: bool = True) -> None:
    """Cancel live jobs; `waits` some time until the running ones have stopped."""
    with app.store.transaction():  # none of them starts meanwhile
        after = [app.store.jobs.cancel(job.id, time.time()) for job in jobs]
    stopping = [job.id for job in after if job.status is Status.RUNNING]
    for job in after:
        stops = job.id in stopping
        out.line(f"job {job.id}: stopping after a checkpoint" if stops else f"job {job.id} cancelled")
        out.changed(job.id)
    out.line(_skipped(app, [job.id for job in after]))
    for job_id in stopping:
        out.line(home_access.wake_worker(app))  # a job without a worker needs one that adopts it
        if waits:
            _wait_until_cancelled(app, job_id, out)


def _skipped(app: App, cancelled: Collection[int]) -> str | None:
    """Return a line about the jobs that are skipped because a cancelled job had to succeed first."""
    lost = set(cancelled)
    required = [
        (dependency.job_id, dependency.on) for dependency in app.store.dependencies.find() if not dependency.any_end
    ]
    while new := {job_id for job_id, on in required if on in lost} - lost:
        lost |= new
    skipped = sorted(lost - set(cancelled))
    more = [f"{len(skipped) - _MAX_LISTED} more"] if len(skipped) > _MAX_LISTED else []
    noun = "job" if len(skipped) == 1 else "jobs"
    return f"{noun} {fmt.listed([*skipped[:_MAX_LISTED], *more])} will be skipped (lq.after)" if skipped else None


def _wait_until_cancelled(app: App, job_id: int, out: ChangeOutput) -> None:
    if control.running(app.home) is None:
        out.line(f"job {job_id} will be cancelled when a worker starts")
        return
    job = _until_not_running(app, job_id, CANCEL_WAIT_S)
    still = f" still; follow it with: lq logs {job_id} -f" if job.status is Status.RUNNING else ""
    out.line(f"job {job_id} {job.status}{still}")


@click.command()
@takes_jobs(GROUP, ALL, FAILED, all="Select every failed or cancelled job.")
@click.option("--fresh", is_flag=True, help="Start again at iteration 0 and discard the training so far.")
@click.option(
    "--from",
    "iteration",
    metavar="ITERATION",
    type=click.IntRange(min=1),
    help="Continue from the checkpoint at this iteration, and delete later ones.",
)
@set_option
@change_options
def retry(
    selection: JobSelection, fresh: bool, iteration: int | None, sets: tuple[str, ...], out: ChangeOutput
) -> None:
    """Queue failed or cancelled jobs again. They keep their ids and continue from their last checkpoints.

    With --set, every job that has ended can be retried: as a new job with these settings, from iteration 0. With
    --from, the new job starts with the weights of that iteration, and with a new optimizer.
    """
    if fresh and (iteration is not None or sets):
        other = "--from" if iteration is not None else "--set"
        raise click.UsageError(f"--fresh and {other} cannot be used together")
    none = f"no job{{of}} has failed{'' if selection.failed else ' or was cancelled'}"
    if sets and not selection.failed:
        none = "no job{of} has ended"
    or_else, able = "--group NAME, --failed or --all", ENDED if sets else RETRIABLE
    with home_access.open_app() as app:
        jobs = args.select_jobs(app, selection, lambda job: job.status in able, none=none, or_else=or_else)
        if sets:
            _queue_changed(app, jobs, sets, iteration, out)
        else:
            retry_jobs(app, jobs, out, iteration=0 if fresh else iteration)
        out.line(home_access.wake_worker(app))
        out.finish(app)


def retry_jobs(app: App, jobs: Sequence[Job], out: ChangeOutput, *, iteration: int | None = None) -> None:
    """Queue jobs again, all or none; `iteration` is where they start, None for their last checkpoints."""
    only = "job {id} is {status}; only failed and cancelled jobs can be retried, and others with --set KEY=VALUE"
    _require(jobs, lambda job: job.status in RETRIABLE, only)
    home_access.require_wakeup(app)
    for job, start in _queue_again(app, jobs, iteration):
        out.line(f"job {job.id} {job.status}; {start}")
        out.changed(job.id)


def _queue_changed(
    app: App, jobs: Sequence[Job], sets: tuple[str, ...], iteration: int | None, out: ChangeOutput
) -> None:
    from orchestrator.submission import rerun

    home_access.require_wakeup(app)
    changed = [rerun.changed(app, job, sets, iteration=iteration) for job in jobs]
    start = "iteration 0" if iteration is None else f"iteration 0 with the weights of iteration {iteration:,}"
    for one, job in zip(changed, rerun.enqueue(app, changed), strict=True):
        for text in one.checked.notes:
            output.note(text)
        out.line(f"job {job.id} {job.status}: as job {one.job.id}, with {'; '.join(one.changes)}; starts at {start}")
        out.changed(job.id)


def _queue_again(app: App, jobs: Sequence[Job], iteration: int | None) -> list[tuple[Job, str]]:
    """Queue all of the jobs, or none if one cannot be queued. Return with each job where it starts."""
    if iteration is None:
        with app.store.transaction():
            queued = [app.store.jobs.retry(job.id, time.time()) for job in jobs]
        continues = "continues from its last checkpoint"
        return [(job, continues if job.attempts else "it had not started") for job in queued]
    from orchestrator.submission import rewind

    ways = [rewind.rewind_to(app, job, iteration) for job in jobs]
    with app.store.transaction():
        queued = [rewind.requeue(app, job, way, time.time()) for job, way in zip(jobs, ways, strict=True)]
    return [(job, way.text) for job, way in zip(queued, ways, strict=True)]


@click.command()
@takes_job
@click.option(
    "--iters", metavar="N", type=click.IntRange(min=1), required=True, help="Iterations of the whole run, old and new."
)
@change_options
def extend(app: App, job: Job, iters: int, out: ChangeOutput) -> None:
    """Continue a job that has succeeded, up to more iterations.

    It resumes exactly from its last checkpoint, so it ends like a job that was submitted with N iterations.
    """
    from orchestrator.submission import rerun

    extension = rerun.extension(app, job, iters)
    home_access.require_wakeup(app)
    extended = rerun.extend(app, extension)
    if extension.note is not None:
        output.note(extension.note)
    out.line(f"job {job.id} {extended.status}: resumes from iteration {extension.resumes:,} of now {extended.iters:,}")
    out.changed(job.id)
    out.line(home_access.wake_worker(app))
    out.finish(app)


# --- dismiss ---


@click.command()
@takes_jobs(GROUP, ALL, FAILED, all="Select every job that did not succeed.")
@change_options
def dismiss(selection: JobSelection, out: ChangeOutput) -> None:
    """Take jobs that did not succeed off the status view and the digest.

    lq status --all and lq show still have them.
    """

    def applies(job: Job) -> bool:
        return job.status in ENDED and job.status is not Status.SUCCEEDED and job.dismissed_at is None

    none, or_else = (
        "no job{of} to dismiss: none has failed that is not dismissed already",
        "--group NAME, --failed or --all",
    )
    with home_access.open_app() as app:
        dismiss_jobs(app, args.select_jobs(app, selection, applies, none=none, or_else=or_else), out)
        out.finish(app)


def dismiss_jobs(app: App, jobs: Sequence[Job], out: ChangeOutput) -> None:
    """Record that the user has seen how jobs failed, all or none."""
    with app.store.transaction():
        for job in jobs:
            app.store.jobs.dismiss(job.id, time.time())
    for job in jobs:
        out.line(f"job {job.id} dismissed" if job.dismissed_at is None else f"job {job.id} is already dismissed")
        out.changed(job.id)
