"""`lq status`, `lq watch` and `lq show`."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import click

from jobs.model.job import Job
from jobs.model.states import Status
from orchestrator.cli import home_access, output
from orchestrator.cli.args import group_option, takes_job
from orchestrator.cli.output import json_option
from orchestrator.cli.views.snapshot import JobDetails, Snapshot, VerdictCache, job_details, take_snapshot
from orchestrator.cli.views.terminal import print_view
from orchestrator.cli.views.waiting import forecast_of, waiting_turns
from orchestrator.core.app import App
from workers.system.processes import is_alive

if TYPE_CHECKING:
    from orchestrator.planning.queue_forecast import QueueForecast
    from orchestrator.results.jobs import JobSummary, ListedJob, ShowResult, StatusResult
    from orchestrator.scheduling.eligibility import Turn


@click.command()
@click.option("--all", "every", is_flag=True, help="Show every job instead of the last 20 that ended.")
@group_option("Show only the jobs of a group with the settings that differ, and mark the best job.")
@click.option("-w", "--watch", "watched", is_flag=True, help="Keep the view open, as lq watch does.")
@json_option
def status(every: bool, group: str | None, watched: bool, as_json: bool) -> int:
    """Show the worker, the running and queued jobs, and the last jobs that ended with their verdict."""
    from orchestrator.cli.views.status import render

    if watched:
        if as_json:
            raise click.UsageError("--watch and --json cannot be used together")
        return _watch(every=every, group=group)
    with home_access.open_app() as app:
        snapshot = take_snapshot(app, every=every, group=group)
        if as_json:
            output.print_json(result_of(snapshot))
        else:
            print_view(render(snapshot))
    return 0


@click.command()
@group_option("Show only the jobs of a group.")
def watch(group: str | None) -> int:
    """Show lq status and update it when something changes; press q to leave."""
    return _watch(every=False, group=group)


def _watch(*, every: bool, group: str | None) -> int:
    from orchestrator.cli.views.watch import watching

    return watching(every=every, group=group)


def result_of(snapshot: Snapshot) -> StatusResult:
    """Build the result of `lq status`."""
    from orchestrator.results import jobs as results
    from orchestrator.results.build import from_attributes

    waiting, worker, machine = snapshot.still_tried, snapshot.worker or {}, snapshot.machine
    return results.StatusResult(
        worker=results.WorkerState(
            alive=snapshot.worker is not None, pid=snapshot.pid, started_at=worker.get("started_at")
        ),
        machine=from_attributes(
            results.MachineReadings,
            machine,
            battery_percent=machine.charge,
            memory_free_bytes=machine.free_bytes,
            memory_bytes=machine.all_bytes,
        ),
        queue=results.QueueSummary(paused=snapshot.queue.paused_at is not None, because=snapshot.queue.because),
        messages=results.UndeliveredCounts(waiting=waiting, gave_up=len(snapshot.undelivered) - waiting),
        settings=snapshot.settings_fault,
        inbox=results.InboxSummary(waiting=snapshot.inbox.files, because=snapshot.inbox.because),
        jobs=[_listed(snapshot, place, job) for place, job in enumerate(snapshot.jobs)],
    )


def _listed(snapshot: Snapshot, place: int, job: Job) -> ListedJob:
    from orchestrator.results.jobs import ListedJob

    summary = summary_of(job, snapshot.turns.get(job.id), snapshot.forecast, snapshot.details.get(job.id))
    fields, group = vars(summary), snapshot.group
    if group is None:
        return ListedJob(**fields, settings=None, best=None)
    settings = {key: values[place] for key, values in group.settings}
    lowest = {"best_val_loss": group.losses.get(job.id)}
    return ListedJob(**fields | lowest, settings=settings, best=job.id == group.best)


def summary_of(job: Job, turn: Turn | None, forecast: QueueForecast, details: JobDetails | None = None) -> JobSummary:
    """Build the summary of a job; `turn` is None if it does not wait in the queue."""
    from orchestrator.results.build import from_attributes
    from orchestrator.results.jobs import JobMemory, JobSummary, NewestIncident

    details = details or JobDetails()
    obstacle = turn.obstacle if turn is not None and job.status is Status.QUEUED else None
    times, left = forecast.times.get(job.id), forecast.time_left.get(job.id)
    last, newest, best = details.recent[-1] if details.recent else None, details.newest, details.best
    return from_attributes(
        JobSummary,
        job,
        eta_seconds=left.expected_s if left is not None and job.status is Status.RUNNING else None,
        group=job.group_name,
        kept_by=obstacle,
        starts_at=times.start if times is not None and turn is not None else None,
        ends_at=times.end if times is not None else None,
        not_before=job.not_before if job.status is Status.WAITING else obstacle.until if obstacle else None,
        pid=job.child.pid if job.child is not None and is_alive(job.child) else None,
        verdict=details.verdict,
        best_val_loss=best.loss if best is not None else None,
        best_val_iteration=best.iteration if best is not None else None,
        phase=details.life.phase if details.life is not None else None,
        memory=from_attributes(JobMemory, last) if last is not None else None,
        incidents=details.incidents,
        newest_incident=from_attributes(NewestIncident, newest) if newest is not None else None,
    )


@click.command()
@takes_job
@click.option("-v", "--verbose", is_flag=True, help="Show every row, and the evidence of each incident.")
@click.option("--output", "whole_output", is_flag=True, help="Show all stored output of the trainers that crashed.")
@json_option
def show(app: App, job: Job, verbose: bool, whole_output: bool, as_json: bool) -> None:
    """Show a job: verdict, attempts, losses, checkpoints, incidents, messages and next steps, in 60 lines at most."""
    from orchestrator.cli.views.job import render
    from orchestrator.report.stored_verdict import lacks_report

    if lacks_report(app.store, job):
        from orchestrator.worker.finalize import write_report

        write_report(app.home, job)
    if as_json:
        output.print_json(_show_result(app, job))
    else:
        print_view(render(app, job, now=time.time(), verbose=verbose, whole_output=whole_output))


def _show_result(app: App, job: Job) -> ShowResult:
    from orchestrator.results.jobs import ShownJob, ShowResult

    store, turn = app.store, waiting_turns(app, [job]).get(job.id)
    details = job_details(app, [job], VerdictCache())[job.id]
    summary = vars(summary_of(job, turn, forecast_of(app, [job]), details))
    return ShowResult(
        job=ShownJob(
            **summary,
            detail=job.detail,
            submitted_at=job.submitted_at,
            cleaned_at=job.cleaned_at,
            dismissed_at=job.dismissed_at,
        ),
        spec=json.loads(store.jobs.spec_json(job.id)),
        attempts=list(store.attempts.of(job.id)),
        validations=list(store.metrics.validations(job.id)),
        tests=list(store.metrics.validations(job.id, kind="test")),
        checkpoints=list(store.metrics.checkpoints(job.id)),
        incidents=list(store.incidents.of(job.id)),
        messages=list(store.outbox.messages(job.id)),
    )
