"""show: everything about one job on a page."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import click

from jobs.model.job import Job
from orchestrator.cli import home_access, output
from orchestrator.cli.commands.status import details_of, entry
from orchestrator.cli.output import json_option
from orchestrator.cli.param_types import JobRef
from orchestrator.cli.views.job import render
from orchestrator.cli.views.terminal import print_view
from orchestrator.cli.views.waiting import forecast_of, waiting_turns
from orchestrator.core.app import App


@click.command()
@home_access.job_id_argument
@click.option("--output", "whole_output", is_flag=True, help="All that is kept of what dead trainers wrote last.")
@json_option
def show(job_id: JobRef, whole_output: bool, as_json: bool) -> None:
    """Show everything about job ID: verdict, attempts, losses, checkpoints, incidents, messages, what to do next."""
    with home_access.opened() as app:
        job = home_access.one_job(app, job_id)
        if as_json:
            output.print_json(_facts(app, job))
            return
        print_view(render(app, job, now=time.time(), whole_output=whole_output))


def _facts(app: App, job: Job) -> dict[str, Any]:
    store = app.store
    more = {"detail": job.detail, "submitted_at": job.submitted_at, "cleaned_at": job.cleaned_at}
    turn = waiting_turns(app, [job]).get(job.id)
    return {
        "job": entry(job, turn, forecast_of(app, [job]), details_of(app, job)) | more,
        "spec": json.loads(store.jobs.spec_json(job.id)),
        "attempts": [dataclasses.asdict(attempt) for attempt in store.attempts.of(job.id)],
        "validations": [dataclasses.asdict(one) for one in store.metrics.validations(job.id)],
        "tests": [dataclasses.asdict(one) for one in store.metrics.validations(job.id, kind="test")],
        "checkpoints": [dataclasses.asdict(one) for one in store.metrics.checkpoints(job.id)],
        "incidents": [dataclasses.asdict(one) for one in store.incidents.of(job.id)],
        "messages": [dataclasses.asdict(one) for one in store.outbox.messages(job.id)],
    }
