"""`lq cancel`, `lq retry` and `lq extend`."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

import click

from jobs.model.errors import NotAllowed
from jobs.model.job import Job
from jobs.model.states import ENDED, Status
from orchestrator.cli import args, home_access, output
from orchestrator.cli.args import ALL, FAILED, GROUP, JobSelection, set_option, takes_jobs
from orchestrator.cli.output import ChangeOutput, change_options
from orchestrator.cli.param_types import JobRef
from orchestrator.core.app import App
from orchestrator.formatting import text as fmt
from orchestrator.worker import control

CANCEL_WAIT_S = 30.0
RETRIABLE = frozenset({Status.FAILED, Status.CANCELLED})
_MAX_LISTED = 12
"""Skipped jobs that `lq cancel` lists by id."""


@click.command()
@takes_jobs(GROUP, ALL, all="Select every job that has not ended.")
@change_options
def cancel(selection: JobSelection, out: ChangeOutput) -> None:
    """Cancel jobs. A running job writes a checkpoint first, from which `lq retry` continues."""
    none, or_else = "every job{of} has already ended", "--group NAME, or --all"
    with home_access.open_app() as app:
        jobs = args.select_jobs(app, selection, lambda job: job.status not in ENDED, none=none, or_else=or_else)
        for job in jobs:
            if job.status in ENDED:
                raise NotAllowed(f"job {job.id} has already ended ({job.status})")
        cancel_jobs(app, jobs, out)
        out.finish(app)


def cancel_jobs(app: App, jobs: Sequence[Job], out: ChangeOutput) -> None:
    """Cancel live jobs, and wait some time until the running ones have stopped."""
    with app.store.transaction():  # none of them starts meanwhile
        after = [app.store.jobs.cancel(job.id, time.time()) for job in jobs]
    stopping = [job.id for job in after if job.status is Status.RUNNING]
    for job in after:
        stops = job.id in stopping
        out.line(f"job {job.id}: stopping after a checkpoint" if stops else f"job {job.id} cancelled")
        out.changed(job.id)
    out.line(_skipped(app, [job.id for job in after]))
    for job_id in stopping:
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
    if not skipped:
        return None
    more = [f"{len(skipped) - _MAX_LISTED} more"] if len(skipped) > _MAX_LISTED else []
    noun = "job" if len(skipped) == 1 else "jobs"
    return f"{noun} {fmt.listed([*skipped[:_MAX_LISTED], *more])} will be skipped (lq.after)"


def _wait_until_cancelled(app: App, job_id: int, out: ChangeOutput) -> None:
    out.line(home_access.wake_worker(app))  # a job without a worker needs one that adopts it
    if control.running(app.home) is None:
        out.line(f"job {job_id} will be cancelled when a worker starts")
        return
    deadline = time.monotonic() + CANCEL_WAIT_S
    while (job := app.store.jobs.get(job_id)).status is Status.RUNNING and time.monotonic() < deadline:
        time.sleep(0.1)
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
    or_else, able = "--group NAME, --failed or --all", ENDED if sets else RETRIABLE
    with home_access.open_app() as app:
        jobs = args.select_jobs(app, selection, lambda job: job.status in able, none=none, or_else=or_else)
        for job in jobs:
            if job.status not in RETRIABLE and not sets:
                text = f"job {job.id} is {job.status}; only failed and cancelled jobs can be retried"
                other = "; with other settings: --set KEY=VALUE" if job.status in ENDED else ""
                raise NotAllowed(f"{text}{other}")
        home_access.require_wakeup(app)
        if sets:
            _queue_changed(app, jobs, sets, iteration, out)
        else:
            for job, start in _queue_again(app, jobs, iteration=0 if fresh else iteration):
                out.line(f"job {job.id} {job.status}; {start}")
                out.changed(job.id)
        out.line(home_access.wake_worker(app))
        out.finish(app)


def _queue_changed(
    app: App, jobs: Sequence[Job], sets: tuple[str, ...], iteration: int | None, out: ChangeOutput
) -> None:
    from orchestrator.submission import rerun

    changed = [rerun.changed(app, job, sets, iteration=iteration) for job in jobs]
    start = "iteration 0" if iteration is None else f"iteration 0 with the weights of iteration {iteration:,}"
    for one, job in zip(changed, rerun.enqueue(app, changed), strict=True):
        for text in one.checked.notes:
            output.note(text)
        out.line(f"job {job.id} {job.status}: as job {one.job.id}, with {'; '.join(one.changes)}; starts at {start}")
        out.changed(job.id)


def _queue_again(app: App, jobs: Sequence[Job], *, iteration: int | None) -> list[tuple[Job, str]]:
    """Queue all of the jobs, or none if one cannot be queued. Return with each job where it starts."""
    if iteration is None:
        with app.store.transaction():
            return [(app.store.jobs.retry(job.id, time.time()), _start(job)) for job in jobs]
    from orchestrator.submission import rewind

    ways = [rewind.rewind_to(app, job, iteration) for job in jobs]
    with app.store.transaction():
        queued = [rewind.requeue(app, job, way, time.time()) for job, way in zip(jobs, ways, strict=True)]
    return [(job, way.text) for job, way in zip(queued, ways, strict=True)]


def _start(job: Job) -> str:
    return "continues from its last checkpoint" if job.attempts else "it had not started"


@click.command()
@home_access.job_id_argument
@click.option(
    "--iters", metavar="N", type=click.IntRange(min=1), required=True, help="Iterations of the whole run, old and new."
)
@change_options
def extend(job_id: JobRef, iters: int, out: ChangeOutput) -> None:
    """Continue a job that has succeeded, up to more iterations.

    It resumes exactly from its last checkpoint, so it ends like a job that was submitted with N iterations.
    """
    from orchestrator.submission import rerun

    with home_access.open_app() as app:
        extension = rerun.extension(app, home_access.find_job(app, job_id), iters)
        home_access.require_wakeup(app)
        job = rerun.extend(app, extension)
        if extension.note is not None:
            output.note(extension.note)
        out.line(f"job {job.id} {job.status}: resumes from iteration {extension.resumes:,} of now {job.iters:,}")
        out.changed(job.id)
        out.line(home_access.wake_worker(app))
        out.finish(app)
