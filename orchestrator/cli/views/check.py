"""What dry runs found, for a person."""

from __future__ import annotations

import re
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from jobs.model.states import Status
from orchestrator.formatting import text as fmt
from orchestrator.formatting.text import duration

if TYPE_CHECKING:
    from orchestrator.core.app import App
    from orchestrator.planning.dry_run import Candidate, Finding, Hours

WIDTH = 80
_LABEL = 9
_UNIT, _KEPT = re.compile(r"(?<=\d) (?=(?:s|min|h|d|[kMG]?B|it/s)\b)"), "\N{NO-BREAK SPACE}"


def announce(candidate: Candidate) -> None:
    """Say what is being waited for, to a person only."""
    if sys.stderr.isatty():
        click.echo(f"rehearsing {candidate.name} …", err=True)


def print_finding(app: App, found: Finding, hours: Hours) -> None:
    """Print what the dry run of one job found."""
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
    for caution in cautions_of(found, hours):
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
        f"{duration(tried.first_update_s)}"
    )


def _time(found: Finding) -> str:
    assert found.forecast is not None
    forecast = found.forecast
    parts = [
        f"{forecast.iterations:,} iterations {duration(forecast.train_s)}",
        f"{forecast.validations:,} validations {duration(forecast.validation_s)}",
        f"{forecast.checkpoints:,} checkpoints {duration(forecast.checkpoint_s)}",
        f"{'start' if forecast.starts == 1 else f'{forecast.starts:,} starts'} {duration(forecast.start_s)}",
        *([f"tests {duration(forecast.test_s)}"] if forecast.test_s else []),
    ]
    return f"{duration(forecast.total_s)}: {', '.join(parts)}"


def _done(hours: Hours, found: Finding) -> str:
    if hours.ends_at is None or hours.begins_at is None:
        return "not within a year"
    begins = "if it begins now" if hours.begins_at - time.time() < 60 else f"if it begins {_hour(hours.begins_at)}"
    window = f", in its window {found.candidate.spec.lq.window}" if found.candidate.spec.lq.window else ""
    due = f"; due {_hour(hours.due_at)}" if hours.due_at is not None else ""
    return f"{_hour(hours.ends_at)}, {begins}{window}{due}"


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


def print_if_moved(found: Finding, before: Hours, now: Hours) -> None:
    """Say it where a job is done later than was told before those behind it were known, one of which trains first."""
    if before.ends_at is not None and now.ends_at is not None and now.ends_at > before.ends_at:
        hour = _hour(now.ends_at)
        click.echo(f"{_who(found.candidate)}: done {hour}, later than told above: a job behind it may begin sooner")


def print_total(findings: Sequence[Finding], hours: Sequence[Hours], *, slots: int, whole_queue: bool) -> None:
    """Print when all of them are done."""
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
    click.echo(f"{jobs}: {duration(total)}, all done {_hour(ends)}{without}")


def _hour(moment: float) -> str:
    """Return an hour, with the day where it is not today."""
    local = time.localtime(moment)
    today = time.localtime()[:3] == local[:3]
    return time.strftime("%H:%M" if today else "%a %d %b %H:%M", local)


def cautions_of(found: Finding, hours: Hours) -> list[dict[str, str]]:
    """Return the warnings about one job."""
    from jobs.estimates import cautions

    late = (
        cautions.of_time(hours.ends_at, hours.due_at, ends=_hour(hours.ends_at), due=_hour(hours.due_at or 0.0))
        if hours.ends_at is not None
        else []
    )
    return [{"code": one.code, "text": one.text} for one in (*found.cautions, *late)]
