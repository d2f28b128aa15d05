"""check."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.model.errors import CheckFailed
from orchestrator.cli import home_access, output
from orchestrator.cli.commands.submit import set_option
from orchestrator.cli.output import json_option
from orchestrator.cli.views.check import announce, cautions_of, print_if_moved, print_total, render
from orchestrator.cli.views.terminal import print_view

if TYPE_CHECKING:
    from jobs.estimates.estimate import TimeEstimate
    from orchestrator.core.app import App
    from orchestrator.planning.dry_run import DryRunResult, Timetable

TIMEOUT_S = 1800.0


@click.command()
@click.argument("files", metavar="[FILE...]", type=click.Path(path_type=Path), nargs=-1)
@click.option("--queue", "whole_queue", is_flag=True, help="Every job that is queued, waiting or held.")
@click.option(
    "--anyway",
    is_flag=True,
    help="Check beside a job that trains, or a verb that uses the device; both are slower then.",
)
@set_option
@click.option(
    "--overwrite", is_flag=True, help="The finished adapter may replace what lies in adapter_path, as in lq submit."
)
@click.option(
    "--timeout",
    "timeout_s",
    metavar="S",
    type=home_access.SECONDS,
    default=TIMEOUT_S,
    help="Seconds one job may take (1800).",
)
@json_option
def check(
    files: Sequence[Path],
    whole_queue: bool,
    anyway: bool,
    sets: Sequence[str],
    overwrite: bool,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Rehearse jobs: will they fit, when will they be done. Nothing is queued, and no job starts meanwhile.

    In a child that is gone afterwards: load, tokenise, the longest batch, real updates, a validation, a checkpoint.
    Exit code: 6 where a job would fail; warnings alone are 0.
    """
    if bool(files) == whole_queue:
        raise click.UsageError("name a job file, or --queue")
    from orchestrator.estimation import disk as budget
    from orchestrator.planning import dry_run

    with home_access.opened() as app, dry_run.exclusive_device(app, anyway=anyway):
        if whole_queue:
            requests = dry_run.of_queue(app)
        else:
            requests = dry_run.of_files(app, files, overwrite=overwrite, sets=sets)
        slots = app.settings().slots
        results: list[DryRunResult] = []
        for request in requests:
            announce(request)
            results.append(dry_run.checked(app, request, timeout_s=timeout_s))
            if not as_json:
                running, now = dry_run.running_jobs(app), time.time()
                times = dry_run.timetables(results, now=now, slots=slots, running=running)
                print_view(render(results[-1], times[-1], disk_free=budget.free_for(app), now=now))
        running, now = dry_run.running_jobs(app), time.time()
        times = dry_run.timetables(results, now=now, slots=slots, running=running)
        if as_json:
            output.print_json(_content(app, results, times))
        else:
            for count, (result, after) in enumerate(zip(results, times, strict=True), start=1):
                before = dry_run.timetables(results[:count], now=now, slots=slots, running=running)[-1]
                print_if_moved(result, before, after)
            print_total(results, times, slots=slots, whole_queue=whole_queue)
    _require_good(results)


def _content(app: App, results: Sequence[DryRunResult], times: Sequence[Timetable]) -> dict[str, Any]:
    ends = [at.ends_at for result, at in zip(results, times, strict=True) if result.counts and at.ends_at is not None]
    return {
        "ok": all(result.ok for result in results),
        "ends_at": max(ends, default=None),
        "jobs": [_entry(app, result, at) for result, at in zip(results, times, strict=True)],
    }


def _entry(app: App, result: DryRunResult, times: Timetable) -> dict[str, Any]:
    from orchestrator.estimation import disk as budget

    request, measured, data = result.request, result.measured, result.data
    return {
        "id": request.job.id if request.job is not None else None,
        "name": request.name,
        "file": request.file,
        "ok": result.ok,
        "failures": [{"code": one.code, "text": one.text} for one in result.failures],
        "warnings": cautions_of(result, times),
        "notes": list(request.notes),
        "memory": {"peak_bytes": result.peak_bytes, "limit_bytes": result.limit_bytes},
        "speed": None
        if measured is None
        else {
            "it_s": measured.it_s,
            "updates": measured.updates,
            "first_update_s": measured.first_update_s,
            "update_s": measured.update_s,
            "padded_tokens": measured.positions,
            "mean_padded_tokens": measured.mean_positions,
        },
        "time": None if result.time is None else _time_entry(result.time),
        "begins_at": times.begins_at,
        "ends_at": times.ends_at,
        "due_at": times.due_at,
        "disk": {
            "need_bytes": request.need.total,
            "free_bytes": budget.free_for(app),
            "checkpoint_bytes": measured.checkpoint_bytes if measured is not None else None,
        },
        "data": None
        if data is None
        else {
            "rows": data.rows,
            "valid_rows": data.valid_rows,
            "truncated": data.truncated,
            "unsupervised": data.unsupervised,
            "padding_share": data.padding_share,
            "epochs": data.epochs(request.spec),
            "duplicates": data.also_trained,
            "near_duplicates": data.nearly_trained,
        },
    }


def _time_entry(estimate: TimeEstimate) -> dict[str, Any]:
    counts = ("iterations", "validations", "checkpoints", "starts")
    spans = ("start_s", "train_s", "validation_s", "checkpoint_s", "test_s")
    return {name: getattr(estimate, name) for name in (*counts, *spans)} | {"total_s": estimate.expected_s}


def _require_good(results: Sequence[DryRunResult]) -> None:
    """Raise CheckFailed with the first job that would fail, and why."""
    bad = [result for result in results if not result.ok]
    if bad:
        first = bad[0].request
        who = first.file or f"job {first.job.id if first.job is not None else first.name}"
        raise CheckFailed(
            f"{len(bad)} of {len(results)} would fail, the first: {who}: {bad[0].failures[0].text}"
            if len(results) > 1
            else f"{who} would fail: {bad[0].failures[0].text}"
        )
