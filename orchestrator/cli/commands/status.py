"""status: the night at a glance."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from jobs.model.job import Job
from jobs.model.states import Status
from orchestrator.cli import home_access, output
from orchestrator.cli.output import json_option
from orchestrator.cli.views.snapshot import JobDetails, Snapshot, VerdictCache, job_details, take_snapshot
from orchestrator.cli.views.status import render, still_tried
from orchestrator.cli.views.terminal import print_view
from workers.system.processes import is_alive

if TYPE_CHECKING:
    from orchestrator.core.app import App
    from orchestrator.planning.queue_forecast import QueueForecast
    from orchestrator.scheduling.eligibility import Turn

group_option = click.option(
    "--group",
    "group_name",
    metavar="NAME",
    shell_complete=home_access.offer_groups,
    help="Only the jobs of this group, with their settings; the best one marked.",
)


@click.command()
@click.option("--all", "every", is_flag=True, help="Every job, not only the last 20 that ended.")
@group_option
@click.option("-w", "--watch", "watched", is_flag=True, help="Stay, and show what changes; q leaves. As lq watch.")
@json_option
def status(every: bool, group_name: str | None, watched: bool, as_json: bool) -> int:
    """Show the night at a glance: what runs, what is to come, and the last jobs that ended with their verdict."""
    if watched:
        from orchestrator.cli.views.watch import watching

        if as_json:
            raise click.UsageError("--watch draws on a terminal, and --json is for machines; name one of them")
        return watching(every=every, group=group_name)
    with home_access.opened() as app:
        snapshot = take_snapshot(app, every=every, group=group_name)
        if as_json:
            output.print_json(content_of(snapshot))
        else:
            print_view(render(snapshot))
    return 0


def content_of(snapshot: Snapshot) -> dict[str, Any]:
    """Return what `lq status --json` prints."""
    missed = still_tried(snapshot.undelivered)
    started = None if snapshot.worker is None else snapshot.worker.get("started_at")
    return {
        "worker": {"alive": snapshot.worker is not None, "pid": snapshot.pid, "started_at": started},
        "machine": snapshot.machine.entry,
        "queue": {"paused": snapshot.queue.paused_at is not None, "because": snapshot.queue.because},
        "messages": {"waiting": missed, "gave_up": len(snapshot.undelivered) - missed},
        "inbox": {"waiting": snapshot.inbox.files, "because": snapshot.inbox.because},
        "jobs": [
            entry(
                job,
                snapshot.turns.get(job.id),
                snapshot.forecast,
                snapshot.details.get(job.id),
            )
            | (snapshot.group.entry(place) if snapshot.group is not None else {})
            for place, job in enumerate(snapshot.jobs)
        ],
    }


def details_of(app: App, job: Job) -> JobDetails:
    """Return what is seen of one job."""
    return job_details(app, [job], VerdictCache())[job.id]


def entry(job: Job, turn: Turn | None, forecast: QueueForecast, details: JobDetails | None = None) -> dict[str, Any]:
    """Return a job as `lq status --json` gives it.

    Args:
        job: the job.
        turn: what keeps it from training; None where it does not wait for its turn.
        forecast: of the queue.
        details: what else is seen of it.
    """
    times, left = forecast.times.get(job.id), forecast.time_left.get(job.id)
    obstacle = turn.obstacle if turn is not None and job.status is Status.QUEUED else None
    return {
        "id": job.id,
        "name": job.name,
        "status": job.status.value,
        "reason": job.reason,
        "iteration": job.iteration,
        "iters": job.iters,
        "train_loss": job.train_loss,
        "val_loss": job.val_loss,
        "it_s": job.it_s,
        "eta_seconds": left.expected_s if left is not None and job.status is Status.RUNNING else None,
        "attempts": job.attempts,
        "priority": job.priority,
        "group": job.group_name,
        "kept_by": None if obstacle is None else dataclasses.asdict(obstacle) | {"why": obstacle.why.value},
        "starts_at": times.start if times is not None and turn is not None else None,
        "ends_at": times.end if times is not None else None,
        "not_before": job.not_before if job.status is Status.WAITING else obstacle and obstacle.until,
        "pid": job.child.pid if job.child is not None and is_alive(job.child) else None,
        "job_dir": job.job_dir,
        **_seen(job, details or JobDetails()),
    }


def _seen(job: Job, details: JobDetails) -> dict[str, Any]:
    last, newest = details.recent[-1] if details.recent else None, details.newest
    memory = ("footprint_bytes", "peak_bytes", "limit_bytes")
    return {
        "verdict": details.verdict,
        "best_val_loss": details.best.loss if details.best is not None else None,
        "best_val_iteration": details.best.iteration if details.best is not None else None,
        "phase": details.life.phase if details.life is not None else None,
        "memory": {name: getattr(last, name) for name in memory} if last is not None else None,
        "incidents": details.incidents,
        "newest_incident": {name: getattr(newest, name) for name in ("time", "code", "text")} if newest else None,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
    }
