"""`lq move`."""

from __future__ import annotations

import click

from jobs.model.states import LIVE, Status
from orchestrator.cli import args, home_access
from orchestrator.cli.args import GROUP, JobSelection, takes_jobs
from orchestrator.cli.output import ChangeOutput, change_options
from orchestrator.cli.param_types import ONE_JOB, JobRef
from orchestrator.core.app import App

_MOVABLE = LIVE - {Status.RUNNING}


@click.command()
@takes_jobs(GROUP)
@click.option("--first", is_flag=True, help="Move before all other jobs.")
@click.option("--last", is_flag=True, help="Move after all other jobs.")
@click.option("--before", metavar="ID", type=ONE_JOB, help="Move directly before this job.")
@click.option("--after", metavar="ID", type=ONE_JOB, help="Move directly after this job.")
@click.option("--priority", metavar="N", type=click.IntRange(-(2**31), 2**31 - 1), help="Set the priority.")
@change_options
def move(
    selection: JobSelection,
    first: bool,
    last: bool,
    before: JobRef | None,
    after: JobRef | None,
    priority: int | None,
    out: ChangeOutput,
) -> None:
    """Move jobs within the queue. Several jobs keep the order given.

    A moved job gets the priority of its new place. A running job continues.
    """
    if sum((first, last, before is not None, after is not None, priority is not None)) != 1:
        raise click.UsageError("give one of --first, --last, --before ID, --after ID, --priority N")
    none = "no job{of} waits in the queue"
    with home_access.open_app() as app:
        jobs = args.select_jobs(app, selection, lambda job: job.status in _MOVABLE, none=none, or_else="--group NAME")
        before_id = home_access.find_job(app, before).id if before is not None else None
        after_id = home_access.find_job(app, after).id if after is not None else None
        with app.store.transaction():
            # --first and --after put each job at the same place, so the last one goes first
            for job in reversed(jobs) if first or after is not None else jobs:
                if priority is not None:
                    app.store.queue.set_priority(job.id, priority)
                else:
                    app.store.queue.move(job.id, before=before_id, after=after_id, last=last)
        for job in jobs:
            out.line(f"job {job.id} moved: {_position(app, job.id)}")
            out.changed(job.id)
        out.finish(app)


def _position(app: App, job_id: int) -> str:
    ids = [entry.job.id for entry in app.store.queue.waiting()]
    job = app.store.jobs.get(job_id)
    position = f"{ids.index(job_id) + 1} of {len(ids)} in the queue" if job_id in ids else str(job.status)
    return f"{position}, priority {job.priority}"
