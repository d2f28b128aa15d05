"""`lq show`."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import click

from jobs.model.job import Job
from orchestrator.cli import home_access, output
from orchestrator.cli.commands.status import summary_of
from orchestrator.cli.output import json_option
from orchestrator.cli.param_types import JobRef
from orchestrator.cli.views.job import render
from orchestrator.cli.views.snapshot import VerdictCache, job_details
from orchestrator.cli.views.terminal import print_view
from orchestrator.cli.views.waiting import forecast_of, waiting_turns
from orchestrator.core.app import App

if TYPE_CHECKING:
    from orchestrator.results.jobs import ShowResult


@click.command()
@home_access.job_id_argument
@click.option("--output", "whole_output", is_flag=True, help="Show all stored output of the trainers that crashed.")
@json_option
def show(job_id: JobRef, whole_output: bool, as_json: bool) -> None:
    """Show everything about a job: verdict, attempts, losses, checkpoints, incidents, messages and next steps."""
    with home_access.open_app() as app:
        job = home_access.find_job(app, job_id)
        if as_json:
            output.print_json(_result(app, job))
            return
        print_view(render(app, job, now=time.time(), whole_output=whole_output))


def _result(app: App, job: Job) -> ShowResult:
    from orchestrator.results.jobs import ShownJob, ShowResult

    store, turn = app.store, waiting_turns(app, [job]).get(job.id)
    details = job_details(app, [job], VerdictCache())[job.id]
    summary = vars(summary_of(job, turn, forecast_of(app, [job]), details))
    return ShowResult(
        job=ShownJob(**summary, detail=job.detail, submitted_at=job.submitted_at, cleaned_at=job.cleaned_at),
        spec=json.loads(store.jobs.spec_json(job.id)),
        attempts=list(store.attempts.of(job.id)),
        validations=list(store.metrics.validations(job.id)),
        tests=list(store.metrics.validations(job.id, kind="test")),
        checkpoints=list(store.metrics.checkpoints(job.id)),
        incidents=list(store.incidents.of(job.id)),
        messages=list(store.outbox.messages(job.id)),
    )
