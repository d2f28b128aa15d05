"""`lq plan`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli import home_access, output
from orchestrator.cli.args import set_option
from orchestrator.cli.output import json_option
from orchestrator.cli.views.terminal import print_view

if TYPE_CHECKING:
    from jobs.estimates.estimate import MemoryEstimate
    from orchestrator.planning.plan import JobPlan, QueuePlan
    from orchestrator.results.planning import PlanMemory, PlannedJob, PlanResult


@click.command()
@click.argument("files", metavar="[FILE...]", type=click.Path(path_type=Path), nargs=-1)
@set_option
@json_option
def plan(files: Sequence[Path], sets: Sequence[str], as_json: bool) -> None:
    """Estimate memory, duration and start times of the queue, and of FILEs after it.

    Nothing is trained, loaded or queued. If the duration of a job is unknown, lq check FILE measures it.
    """
    from orchestrator.planning import plan as planning

    with home_access.open_app() as app:
        planned = planning.plan(app, files, sets=sets)
    if as_json:
        output.print_json(_result(planned))
    else:
        from orchestrator.cli.views.plan import render

        print_view(render(planned))


def _result(plan: QueuePlan) -> PlanResult:
    from orchestrator.results.planning import PlanDisk, PlanResult

    return PlanResult(
        now=plan.now,
        recommended_bytes=plan.recommended,
        recommended_by=plan.recommended_by,
        queue_paused=plan.queue_paused,
        disk=PlanDisk(free_bytes=plan.disk_free, need_bytes=plan.disk_need, floor_bytes=plan.disk_floor),
        jobs=[_job(job) for job in plan.jobs],
    )


def _job(job: JobPlan) -> PlannedJob:
    from orchestrator.results.build import from_attributes
    from orchestrator.results.planning import PlannedJob, PlanRemedy, PlanTime

    times = job.times
    return from_attributes(
        PlannedJob,
        job,
        file=str(job.source) if job.source is not None else None,
        memory=_memory(job.memory) if job.memory is not None else None,
        limit_bytes=job.limit,
        room_bytes=job.usable,
        time=from_attributes(PlanTime, job.time) if job.time is not None else None,
        start=times.start,
        end=times.end,
        stints=list(times.stints),
        behind=times.behind,
        late_s=times.late_s,
        remedies=[
            from_attributes(PlanRemedy, step, change=step.text, memory=_memory(step.memory)) for step in job.steps
        ],
        disk_bytes=job.disk.total if job.disk is not None else None,
        notes=list(job.notes),
    )


def _memory(estimate: MemoryEstimate) -> PlanMemory:
    from orchestrator.results.build import from_attributes
    from orchestrator.results.planning import PlanMemory

    return from_attributes(
        PlanMemory,
        estimate,
        low_bytes=estimate.low,
        expected_bytes=estimate.expected,
        high_bytes=estimate.high,
    )
