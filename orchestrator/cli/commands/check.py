"""check."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.model.errors import CheckFailed
from jobs.model.states import Status
from orchestrator.cli import home_access, output
from orchestrator.cli.commands.submit import set_option
from orchestrator.cli.output import json_option
from orchestrator.cli.views.check import announce, cautions_of, print_finding, print_if_moved, print_total

if TYPE_CHECKING:
    from orchestrator.core.app import App
    from orchestrator.planning.dry_run import Finding, Hours

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
    from orchestrator.planning import dry_run

    with home_access.opened() as app, dry_run.at_rest(app, anyway=anyway):
        if whole_queue:
            candidates = dry_run.of_queue(app)
        else:
            candidates = dry_run.of_files(app, files, overwrite=overwrite, sets=sets)
        begins_at, slots = _begins_at(app), app.settings().slots
        findings: list[Finding] = []
        for candidate in candidates:
            announce(candidate)
            findings.append(dry_run.rehearsed(app, candidate, timeout_s=timeout_s))
            if not as_json:
                hours = dry_run.timetable(findings, begins_at=max(begins_at, time.time()), slots=slots)
                print_finding(app, findings[-1], hours[-1])
        begins_at = max(begins_at, time.time())
        hours = dry_run.timetable(findings, begins_at=begins_at, slots=slots)
        if as_json:
            output.print_json(_content(app, findings, hours))
        else:
            for place, (found, now) in enumerate(zip(findings, hours, strict=True), start=1):
                before = dry_run.timetable(findings[:place], begins_at=begins_at, slots=slots)[-1]
                print_if_moved(found, before, now)
            print_total(findings, hours, slots=slots, whole_queue=whole_queue)
    _require_good(findings)


def _begins_at(app: App) -> float:
    """Return when the machine will be free, as far as the jobs that train now tell; unix seconds."""
    training = (job for job in home_access.all_jobs(app) if job.status is Status.RUNNING)
    return time.time() + sum(job.eta_seconds or 0.0 for job in training)


def _content(app: App, findings: Sequence[Finding], hours: Sequence[Hours]) -> dict[str, Any]:
    ends = [hour.ends_at for one, hour in zip(findings, hours, strict=True) if one.counts and hour.ends_at is not None]
    return {
        "ok": all(one.ok for one in findings),
        "ends_at": max(ends, default=None),
        "jobs": [_entry(app, one, hour) for one, hour in zip(findings, hours, strict=True)],
    }


def _entry(app: App, found: Finding, hours: Hours) -> dict[str, Any]:
    from orchestrator.estimation import disk as budget

    candidate, tried, forecast, data = found.candidate, found.tried, found.forecast, found.data
    need = candidate.need
    return {
        "id": candidate.job.id if candidate.job is not None else None,
        "name": candidate.name,
        "file": candidate.file,
        "ok": found.ok,
        "failures": [{"code": one.code, "text": one.text} for one in found.failures],
        "warnings": cautions_of(found, hours),
        "notes": list(candidate.notes),
        "memory": {"peak_bytes": found.peak_bytes, "limit_bytes": found.limit_bytes},
        "speed": None
        if tried is None
        else {
            "it_s": tried.it_s,
            "updates": tried.updates,
            "first_update_s": tried.first_update_s,
            "update_s": tried.update_s,
            "padded_tokens": tried.positions,
            "mean_padded_tokens": tried.mean_positions,
        },
        "time": None if forecast is None else dataclasses.asdict(forecast) | {"total_s": forecast.total_s},
        "begins_at": hours.begins_at,
        "ends_at": hours.ends_at,
        "due_at": hours.due_at,
        "disk": {
            "need_bytes": need.total,
            "free_bytes": budget.free_for(app),
            "checkpoint_bytes": tried.checkpoint_bytes if tried is not None else None,
        },
        "data": None
        if data is None
        else {
            "rows": data.rows,
            "valid_rows": data.valid_rows,
            "truncated": data.truncated,
            "unsupervised": data.unsupervised,
            "padding_share": data.padding_share,
            "epochs": data.epochs(candidate.spec),
            "duplicates": data.also_trained,
            "near_duplicates": data.nearly_trained,
        },
    }


def _require_good(findings: Sequence[Finding]) -> None:
    """Raise CheckFailed with the first job that would fail, and why."""
    bad = [one for one in findings if not one.ok]
    if bad:
        first = bad[0].candidate
        who = first.file or f"job {first.job.id if first.job is not None else first.name}"
        raise CheckFailed(
            f"{len(bad)} of {len(findings)} would fail, the first: {who}: {bad[0].failures[0].text}"
            if len(findings) > 1
            else f"{who} would fail: {bad[0].failures[0].text}"
        )
