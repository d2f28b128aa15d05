"""cancel and retry."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

import click

from jobs.model.errors import NotAllowed
from jobs.model.job import Job
from jobs.model.states import ENDED, LEGAL, Status
from orchestrator.cli import args, home_access
from orchestrator.cli.args import ALL, FAILED, GROUP, Choice, takes_jobs
from orchestrator.cli.output import Voice, takes_voice
from orchestrator.core.app import App
from orchestrator.formatting import text as fmt
from orchestrator.worker import control

CANCEL_WAIT_S = 30.0
RETRIABLE = frozenset(status for status in ENDED if Status.QUEUED in LEGAL[status])
_MOST_NAMED = 12
"""Jobs that are named one by one where a cancel takes them along."""


@click.command()
@takes_jobs(GROUP, ALL, all="Every job that has not ended.")
@takes_voice
def cancel(choice: Choice, voice: Voice) -> None:
    """Stop jobs for good: a running one writes a checkpoint first, and `lq retry` would go on from it.

    Of a group, a range or all jobs those that have ended stay as they are.
    """
    none = "every job{of} has ended already; there is nothing to cancel"
    or_else = "--group NAME, or --all"
    with home_access.opened() as app:
        jobs = args.jobs_of(app, choice, lambda job: job.status not in ENDED, none=none, or_else=or_else)
        for job in jobs:
            _require_live(job)
        cancel_jobs(app, jobs, voice)
        voice.end(app)


def cancel_jobs(app: App, jobs: Sequence[Job], voice: Voice) -> None:
    """Cancel live jobs, and wait a while for those that run."""
    with app.store.transaction():  # none of them begins while others are cancelled
        after = [app.store.jobs.cancel(job.id, time.time()) for job in jobs]
    asked = [job.id for job in after if job.status is Status.RUNNING]
    for job in after:
        voice.say(
            f"job {job.id}: asked to stop; it writes a checkpoint first"
            if job.id in asked
            else f"job {job.id} cancelled"
        )
        voice.done(job.id)
    voice.say(_taken_along(app, [job.id for job in after]))
    for job_id in asked:
        _wait_until_cancelled(app, job_id, voice)


def _taken_along(app: App, cancelled: Collection[int]) -> str | None:
    """Say which jobs can no longer run, because a cancelled one had to succeed first; None where there is none."""
    lost = set(cancelled)
    needed = [(one.job_id, one.on) for one in app.store.dependencies.find() if not one.any_end]
    while new := {job_id for job_id, on in needed if on in lost} - lost:
        lost |= new
    along = sorted(lost - set(cancelled))
    if not along:
        return None
    named = along if len(along) <= _MOST_NAMED else [*along[:_MOST_NAMED], f"{len(along) - _MOST_NAMED} more"]
    return f"{'job' if len(along) == 1 else 'jobs'} {fmt.listed(named)} will be skipped: lq.after wants its success"


def _wait_until_cancelled(app: App, job_id: int, voice: Voice) -> None:
    voice.say(home_access.wake_worker(app))  # a job whose worker is gone needs one that adopts it
    if control.running(app.home) is None:
        voice.say(f"job {job_id} is cancelled as soon as a worker runs")
        return
    deadline = time.monotonic() + CANCEL_WAIT_S
    while (job := app.store.jobs.get(job_id)).status is Status.RUNNING and time.monotonic() < deadline:
        time.sleep(0.1)
    after = "" if job.status is not Status.RUNNING else f" still; follow it with: lq logs {job_id} -f"
    voice.say(f"job {job_id} {job.status}{after}")


@click.command()
@takes_jobs(GROUP, ALL, FAILED, all="Every job that failed or was cancelled.")
@click.option("--fresh", is_flag=True, help="From the beginning; what was trained is given up.")
@click.option(
    "--from", "iteration", metavar="ITERATION", type=click.IntRange(min=1), help="From the checkpoint kept of there."
)
@takes_voice
def retry(choice: Choice, fresh: bool, iteration: int | None, voice: Voice) -> None:
    """Queue failed or cancelled jobs again, under their ids; they go on from their last checkpoint.

    With --fresh they begin again at iteration 0, with --from at an earlier checkpoint: later ones are not used any
    more, and go.
    """
    if fresh and iteration is not None:
        raise click.UsageError("--fresh begins at iteration 0; say --fresh or --from, not both")
    what = "has failed" if choice.failed else "has failed or was cancelled"
    none = f"no job{{of}} {what}; there is nothing to retry"
    or_else = "--group NAME, --failed or --all"
    with home_access.opened() as app:
        jobs = args.jobs_of(app, choice, lambda job: job.status in RETRIABLE, none=none, or_else=or_else)
        for job in jobs:
            _require_retriable(job)
        home_access.require_bell(app)
        for job, goes_on in _again(app, jobs, iteration=0 if fresh else iteration):
            voice.say(f"job {job.id} {job.status}; {goes_on}")
            voice.done(job.id)
        voice.say(home_access.wake_worker(app))
        voice.end(app)


def _again(app: App, jobs: Sequence[Job], *, iteration: int | None) -> list[tuple[Job, str]]:
    """Queue jobs again; say of each where it goes on. None of them is, where one cannot be."""
    if iteration is None:
        with app.store.transaction():
            return [(app.store.jobs.retry(job.id, time.time()), _from_where(job)) for job in jobs]
    from orchestrator.submission import rewind

    ways = [rewind.way_back(app, job, iteration) for job in jobs]
    with app.store.transaction():
        queued = [rewind.go(app, job, way, time.time()) for job, way in zip(jobs, ways, strict=True)]
    return [(job, way.text) for job, way in zip(queued, ways, strict=True)]


def _from_where(job: Job) -> str:
    return "goes on from its last checkpoint" if job.attempts else "it had not begun"


def _require_live(job: Job) -> None:
    if job.status in ENDED:
        raise NotAllowed(f"job {job.id} has ended already ({job.status}); there is nothing to cancel")


def _require_retriable(job: Job) -> None:
    if job.status not in RETRIABLE:
        raise NotAllowed(f"job {job.id} is {job.status}; only failed and cancelled jobs can be retried")
