"""`lq check` and `lq plan`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jobs.model.errors import CheckFailed
from orchestrator.cli import home_access, output
from orchestrator.cli.args import ROW, JobFileVerb, files_argument, overwrite_option, seconds_option, set_option
from orchestrator.cli.output import json_option
from orchestrator.cli.views.terminal import print_view

if TYPE_CHECKING:
    from jobs.estimates.estimate import MemoryEstimate
    from orchestrator.core.app import App
    from orchestrator.planning.dry_run import DryRunResult, Timetable
    from orchestrator.planning.plan import JobPlan, QueuePlan
    from orchestrator.results.planning import CheckedJob, CheckResult, PlanMemory, PlannedJob, PlanResult

TIMEOUT_S = 1800.0


@click.command(cls=JobFileVerb)
@files_argument(required=False)
@click.option("--queue", "whole_queue", is_flag=True, help="Check every queued, waiting or held job.")
@click.option(
    "--anyway", is_flag=True, help="Check while a job trains or another verb uses the device; both become slower."
)
@click.option(
    "--show-row",
    metavar="[SET:]N",
    type=ROW,
    help="Only show row N of train, valid:N or test:N as the model sees it, with the learned part marked.",
)
@set_option
@overwrite_option
@seconds_option("--timeout", "timeout_s", "Stop the dry run of a job after this many seconds", TIMEOUT_S)
@json_option
def check(
    files: Sequence[Path],
    whole_queue: bool,
    anyway: bool,
    show_row: tuple[str, int] | None,
    sets: Sequence[str],
    overwrite: bool,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Check jobs with a dry run: memory, speed, end time, disk space and data. Nothing is queued.

    A child process loads the model, tokenizes the data, trains a few updates on the longest batch, evaluates, and
    writes a checkpoint. No job starts meanwhile. Exit code: 6 if a job would fail; 0 with warnings only.
    """
    if bool(files) == whole_queue:
        raise click.UsageError("give a job file, or --queue")
    if show_row is not None:
        _show_row(files, sets, *show_row, as_json=as_json)
        return
    from orchestrator.cli.views import check as view
    from orchestrator.estimation import disk
    from orchestrator.planning import dry_run

    with home_access.open_app() as app, dry_run.exclusive_device(app, anyway=anyway):
        if whole_queue:
            requests = dry_run.of_queue(app)
        else:
            requests = dry_run.of_files(app, files, overwrite=overwrite, sets=sets)
        slots = app.settings().slots
        results: list[DryRunResult] = []
        for request in [*requests, None]:
            if request is not None:
                view.announce(request)
                results.append(dry_run.checked(app, request, timeout_s=timeout_s))
            running, now = dry_run.running_jobs(app), time.time()
            times = dry_run.timetables(results, now=now, slots=slots, running=running)
            if request is not None and not as_json:
                print_view(view.render(results[-1], times[-1], disk_free=disk.free_for(app), now=now))
        if as_json:
            output.print_json(_check_result(app, results, times))
        else:
            for count, (result, after) in enumerate(zip(results, times, strict=True), start=1):
                before = dry_run.timetables(results[:count], now=now, slots=slots, running=running)[-1]
                view.print_if_moved(result, before, after)
            if len(results) > 1 or whole_queue:
                click.echo(view.total(results, times, slots=slots, now=now) if results else "the queue is empty")
    _require_ok(results)


def _show_row(files: Sequence[Path], sets: Sequence[str], name: str, number: int, *, as_json: bool) -> None:
    """Show a row of the data of each job; jobs with the same data, model and mask share one."""
    if not files:
        raise click.UsageError("--show-row needs a job file")
    from configs.load import load_jobs
    from orchestrator.cli.views.check import row
    from orchestrator.results.planning import CheckedRow, CheckedRows, LearnedPart
    from orchestrator.submission.data_check import shown_row
    from orchestrator.submission.submit import OF_DATA

    with home_access.open_app() as app:
        jobs = [loaded.spec for file in files for loaded in load_jobs(file, sets, defaults=app.settings().defaults)]
        rows = []
        for spec in {spec.model_dump_json(include=OF_DATA): spec for spec in jobs}.values():
            path, shown, note = shown_row(app, spec, name, number)
            parts = [LearnedPart(start=first, end=last, text=shown.text[first:last]) for first, last in shown.learned]
            about = dataclasses.asdict(shown) | {"learned": parts}
            rows.append(CheckedRow(name=spec.name, file=str(path), row=number, note=note, **about))
    if as_json:
        output.print_json(CheckedRows(rows=rows))
    else:
        for each in rows:
            print_view(row(each))


def _check_result(app: App, results: Sequence[DryRunResult], times: Sequence[Timetable]) -> CheckResult:
    from orchestrator.results.planning import CheckResult

    pairs = list(zip(results, times, strict=True))
    ends = [at.ends_at for result, at in pairs if result.counts and at.ends_at is not None]
    jobs = [_checked_job(app, result, at) for result, at in pairs]
    return CheckResult(ok=all(result.ok for result in results), ends_at=max(ends, default=None), jobs=jobs)


def _checked_job(app: App, result: DryRunResult, times: Timetable) -> CheckedJob:
    from orchestrator.cli.views.check import cautions_of
    from orchestrator.estimation import disk
    from orchestrator.results import planning as models
    from orchestrator.results.build import from_attributes

    request, measured, data = result.request, result.measured, result.data
    speed = summary = None
    if measured is not None:
        tokens = {"padded_tokens": measured.positions, "mean_padded_tokens": measured.mean_positions}
        speed = from_attributes(models.CheckSpeed, measured, **tokens)
    if data is not None:
        duplicates = {"duplicates": data.also_trained, "near_duplicates": data.nearly_trained}
        summary = from_attributes(models.CheckData, data, epochs=data.epochs(request.spec), **duplicates)
    left = result.time
    return models.CheckedJob(
        id=request.job.id if request.job is not None else None,
        name=request.name,
        file=request.file,
        ok=result.ok,
        failures=list(result.failures),
        warnings=cautions_of(result, times),
        notes=list(request.notes),
        memory=from_attributes(models.CheckMemory, result),
        speed=speed,
        time=from_attributes(models.CheckTime, left, total_s=left.expected_s) if left is not None else None,
        begins_at=times.begins_at,
        ends_at=times.ends_at,
        due_at=times.due_at,
        disk=models.CheckDisk(
            need_bytes=request.need.total,
            free_bytes=disk.free_for(app),
            checkpoint_bytes=measured.checkpoint_bytes if measured is not None else None,
        ),
        data=summary,
    )


def _require_ok(results: Sequence[DryRunResult]) -> None:
    """Raise CheckFailed with the first job that would fail, and why."""
    failed = [result for result in results if not result.ok]
    if not failed:
        return
    first = failed[0].request
    name = first.file or f"job {first.job.id if first.job is not None else first.name}"
    text = failed[0].failures[0].text
    if len(results) == 1:
        raise CheckFailed(f"{name} would fail: {text}")
    raise CheckFailed(f"{len(failed)} of {len(results)} jobs would fail, the first: {name}: {text}")


@click.command(cls=JobFileVerb)
@files_argument(required=False)
@set_option
@json_option
def plan(files: Sequence[Path], sets: Sequence[str], as_json: bool) -> None:
    """Estimate memory, duration and start times of the queue, and of FILEs after it.

    Nothing is trained, loaded or queued. If the duration of a job is unknown, lq check FILE measures it.
    """
    from orchestrator.cli.views.plan import render
    from orchestrator.planning import plan as planning

    with home_access.open_app() as app:
        planned = planning.plan(app, files, sets=sets)
    if as_json:
        output.print_json(_plan_result(planned))
    else:
        print_view(render(planned))


def _plan_result(plan: QueuePlan) -> PlanResult:
    from orchestrator.results.planning import PlanDisk, PlanResult

    return PlanResult(
        now=plan.now,
        recommended_bytes=plan.recommended,
        recommended_by=plan.recommended_by,
        queue_paused=plan.queue_paused,
        disk=PlanDisk(free_bytes=plan.disk_free, need_bytes=plan.disk_need, floor_bytes=plan.disk_floor),
        jobs=[_planned_job(job) for job in plan.jobs],
    )


def _planned_job(job: JobPlan) -> PlannedJob:
    from orchestrator.results.build import from_attributes
    from orchestrator.results.planning import PlannedJob, PlanRemedy, PlanTime

    times = job.times
    steps = [from_attributes(PlanRemedy, step, change=step.text, memory=_memory(step.memory)) for step in job.steps]
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
        remedies=steps,
        disk_bytes=job.disk.total if job.disk is not None else None,
        notes=list(job.notes),
    )


def _memory(estimate: MemoryEstimate) -> PlanMemory:
    from orchestrator.results.build import from_attributes
    from orchestrator.results.planning import PlanMemory

    sizes = {"low_bytes": estimate.low, "expected_bytes": estimate.expected, "high_bytes": estimate.high}
    return from_attributes(PlanMemory, estimate, **sizes)
