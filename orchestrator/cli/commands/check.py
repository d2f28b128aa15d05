"""check."""

from __future__ import annotations

import dataclasses
import re
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.model.errors import CheckFailed
from jobs.model.states import Status
from orchestrator.cli import home_access, output
from orchestrator.cli.commands.submit import set_option
from orchestrator.cli.output import json_option
from orchestrator.formatting import text as fmt

if TYPE_CHECKING:
    from orchestrator.core.app import App
    from orchestrator.planning.dry_run import Candidate, Finding, Hours

WIDTH = 80
TIMEOUT_S = 1800.0
_LABEL = 9
_UNIT, _KEPT = re.compile(r"(?<=\d) (?=(?:s|min|h|d|[kMG]?B|it/s)\b)"), "\N{NO-BREAK SPACE}"


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
            _announce(candidate)
            findings.append(dry_run.rehearsed(app, candidate, timeout_s=timeout_s))
            if not as_json:
                hours = dry_run.timetable(findings, begins_at=max(begins_at, time.time()), slots=slots)
                _tell(app, findings[-1], hours[-1])
        begins_at = max(begins_at, time.time())
        hours = dry_run.timetable(findings, begins_at=begins_at, slots=slots)
        if as_json:
            output.print_json(_content(app, findings, hours))
        else:
            for place, (found, now) in enumerate(zip(findings, hours, strict=True), start=1):
                before = dry_run.timetable(findings[:place], begins_at=begins_at, slots=slots)[-1]
                _tell_if_moved(found, before, now)
            _tell_sum(findings, hours, slots=slots, whole_queue=whole_queue)
    _require_good(findings)


def _begins_at(app: App) -> float:
    """Return when the machine will be free, as far as the jobs that train now tell; unix seconds."""
    training = (job for job in home_access.all_jobs(app) if job.status is Status.RUNNING)
    return time.time() + sum(job.eta_seconds or 0.0 for job in training)


def _announce(candidate: Candidate) -> None:
    """Say what is being waited for, to a person only."""
    if sys.stderr.isatty():
        click.echo(f"rehearsing {candidate.name} …", err=True)


# --- for a person ---


def _tell(app: App, found: Finding, hours: Hours) -> None:
    candidate = found.candidate
    held = ", held" if candidate.job is not None and candidate.job.status is Status.HELD else ""
    click.echo(f"{_who(candidate)}: {'would run' if found.ok else 'WOULD FAIL'}{held}")
    for label, text in _lines(app, found, hours):
        _print(label, text)
    click.echo()


def _who(candidate: Candidate) -> str:
    return f"job {candidate.job.id} {candidate.name}" if candidate.job is not None else candidate.name


def _print(label: str, text: str) -> None:
    """Print a line with its label, wrapped below itself; a number stays with its unit."""
    indent = " " * (2 + _LABEL)
    text = _UNIT.sub(_KEPT, text)
    lines = textwrap.wrap(text, WIDTH - len(indent), break_long_words=False, break_on_hyphens=False)
    for place, line in enumerate(lines):
        click.echo(f"  {label if place == 0 else '':<{_LABEL}}{line.replace(_KEPT, ' ')}")


def _lines(app: App, found: Finding, hours: Hours) -> Iterator[tuple[str, str]]:
    for failure in found.failures:
        yield "FAILS", failure.text
    if found.peak_bytes is not None:
        yield "memory", _memory(found)
    if found.tried is not None and found.forecast is not None:
        yield "speed", _speed(found)
        yield "time", _time(found)
        yield "done", _done(hours, found)
    yield "disk", _disk(app, found)
    if found.data is not None:
        yield "data", _data(found)
    for text in found.candidate.notes:
        if text != "no validation set":  # one of the warnings too
            yield "note", text
    for caution in _cautions(found, hours):
        yield "warning", caution["text"]


def _memory(found: Finding) -> str:
    assert found.peak_bytes is not None
    if not found.limit_bytes:
        return f"{fmt.size(found.peak_bytes)} at its peak"
    share, limit = found.peak_bytes / found.limit_bytes, found.candidate.spec.lq.memory.limit
    of = f"lq.memory.limit {limit}" if isinstance(limit, str) else "lq.memory.limit"
    return f"{fmt.size(found.peak_bytes)} at its peak, {share:.0%} of {fmt.size(found.limit_bytes)} ({of})"


def _speed(found: Finding) -> str:
    assert found.tried is not None
    tried = found.tried
    timed = tried.updates - 1
    timed_words = "1 update" if timed == 1 else f"{timed} updates"
    return (
        f"{fmt.figure(tried.it_s)} it/s, from {timed_words}; the first one, which compiles, took "
        f"{fmt.duration(tried.first_update_s)}"
    )


def _time(found: Finding) -> str:
    assert found.forecast is not None
    forecast = found.forecast
    parts = [
        f"{forecast.iterations:,} iterations {fmt.duration(forecast.train_s)}",
        f"{forecast.validations:,} validations {fmt.duration(forecast.validation_s)}",
        f"{forecast.checkpoints:,} checkpoints {fmt.duration(forecast.checkpoint_s)}",
        f"{'start' if forecast.starts == 1 else f'{forecast.starts:,} starts'} {fmt.duration(forecast.start_s)}",
        *([f"tests {fmt.duration(forecast.test_s)}"] if forecast.test_s else []),
    ]
    return f"{fmt.duration(forecast.total_s)}: {', '.join(parts)}"


def _done(hours: Hours, found: Finding) -> str:
    if hours.ends_at is None or hours.begins_at is None:
        return "not within a year"
    begins = (
        "if it begins now" if hours.begins_at - time.time() < 60 else f"if it begins {fmt.short_time(hours.begins_at)}"
    )
    window = f", in its window {found.candidate.spec.lq.window}" if found.candidate.spec.lq.window else ""
    due = f"; due {fmt.short_time(hours.due_at)}" if hours.due_at is not None else ""
    return f"{fmt.short_time(hours.ends_at)}, {begins}{window}{due}"


def _disk(app: App, found: Finding) -> str:
    from orchestrator.estimation import disk as budget

    need = found.candidate.need
    whole = f"{fmt.size(need.total)} at most of {fmt.size(budget.free_for(app))} that are free"
    written = found.tried.checkpoint_bytes if found.tried is not None else None
    if written is None:
        return whole
    return f"{whole}; a checkpoint of {fmt.size(written)} was written and verified"


def _data(found: Finding) -> str:
    assert found.data is not None
    data = found.data
    padding = f", padding {data.padding_share:.0%}" if data.padding_share is not None else ""
    cut = f"{data.truncated:,} cut" if data.truncated else "none cut"
    return (
        f"{data.rows:,} rows, {cut}{padding}; {data.valid_rows:,} to validate; "
        f"{data.epochs(found.candidate.spec):.3g} epochs"
    )


def _tell_if_moved(found: Finding, before: Hours, now: Hours) -> None:
    """Say it where a job is done later than was told before those behind it were known, one of which trains first."""
    if before.ends_at is not None and now.ends_at is not None and now.ends_at > before.ends_at:
        hour = fmt.short_time(now.ends_at)
        click.echo(f"{_who(found.candidate)}: done {hour}, later than told above: a job behind it may begin sooner")


def _tell_sum(findings: Sequence[Finding], hours: Sequence[Hours], *, slots: int, whole_queue: bool) -> None:
    if not findings:
        click.echo("nothing waits in the queue")
        return
    if len(findings) < 2 and not whole_queue:
        return
    counted = [hour for one, hour in zip(findings, hours, strict=True) if one.counts and hour.ends_at is not None]
    ends = max((hour.ends_at for hour in counted if hour.ends_at is not None), default=None)
    total = sum(one.forecast.total_s for one in findings if one.counts and one.forecast is not None)
    left_out = len(findings) - len(counted)
    without = f"; without {left_out} that would fail or {'is' if left_out == 1 else 'are'} held" if left_out else ""
    if ends is None:
        click.echo("none of them would run")
        return
    order = "one after the other" if slots == 1 else f"up to {slots} at a time"
    jobs = "1 job" if len(counted) == 1 else f"{len(counted)} jobs, {order}"
    click.echo(f"{jobs}: {fmt.duration(total)}, all done {fmt.short_time(ends)}{without}")


# --- for machines ---


def _cautions(found: Finding, hours: Hours) -> list[dict[str, str]]:
    from jobs.estimates import cautions

    late = (
        cautions.of_time(
            hours.ends_at, hours.due_at, ends=fmt.short_time(hours.ends_at), due=fmt.short_time(hours.due_at)
        )
        if hours.ends_at is not None
        else []
    )
    return [{"code": one.code, "text": one.text} for one in (*found.cautions, *late)]


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
        "warnings": _cautions(found, hours),
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
