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
    from orchestrator.planning.dry_run import DryRunRequest, DryRunResult, Timetable

WIDTH = 80
_LABEL = 9
_UNIT, _KEPT = re.compile(r"(?<=\d) (?=(?:s|min|h|d|[kMG]?B|it/s)\b)"), "\N{NO-BREAK SPACE}"


def announce(request: DryRunRequest) -> None:
    """Say what is being waited for, to a person only."""
    if sys.stderr.isatty():
        click.echo(f"checking {request.name} …", err=True)


def print_result(app: App, result: DryRunResult, times: Timetable) -> None:
    """Print the result of one dry run."""
    request = result.request
    held = ", held" if request.job is not None and request.job.status is Status.HELD else ""
    click.echo(f"{_who(request)}: {'would run' if result.ok else 'WOULD FAIL'}{held}")
    for label, text in _lines(app, result, times):
        _print(label, text)
    click.echo()


def _who(request: DryRunRequest) -> str:
    return f"job {request.job.id} {request.name}" if request.job is not None else request.name


def _print(label: str, text: str) -> None:
    """Print a line with its label, wrapped below itself; a number stays with its unit."""
    indent = " " * (2 + _LABEL)
    text = _UNIT.sub(_KEPT, text)
    lines = textwrap.wrap(text, WIDTH - len(indent), break_long_words=False, break_on_hyphens=False)
    for place, line in enumerate(lines):
        click.echo(f"  {label if place == 0 else '':<{_LABEL}}{line.replace(_KEPT, ' ')}")


def _lines(app: App, result: DryRunResult, times: Timetable) -> Iterator[tuple[str, str]]:
    for failure in result.failures:
        yield "FAILS", failure.text
    if result.peak_bytes is not None:
        yield "memory", _memory(result)
    if result.measured is not None and result.time is not None:
        yield "speed", _speed(result)
        yield "time", _time(result)
        yield "done", _done(times, result)
    yield "disk", _disk(app, result)
    if result.data is not None:
        yield "data", _data(result)
    for text in result.request.notes:
        if text != "no validation set":  # one of the warnings too
            yield "note", text
    for caution in cautions_of(result, times):
        yield "warning", caution["text"]


def _memory(result: DryRunResult) -> str:
    assert result.peak_bytes is not None
    if not result.limit_bytes:
        return f"{fmt.size(result.peak_bytes)} at its peak"
    share, limit = result.peak_bytes / result.limit_bytes, result.request.spec.lq.memory.limit
    of = f"lq.memory.limit {limit}" if isinstance(limit, str) else "lq.memory.limit"
    return f"{fmt.size(result.peak_bytes)} at its peak, {share:.0%} of {fmt.size(result.limit_bytes)} ({of})"


def _speed(result: DryRunResult) -> str:
    assert result.measured is not None
    measured = result.measured
    timed = measured.updates - 1
    timed_words = "1 update" if timed == 1 else f"{timed} updates"
    return (
        f"{fmt.figure(measured.it_s)} it/s, from {timed_words}; the first one, which compiles, took "
        f"{duration(measured.first_update_s)}"
    )


def _time(result: DryRunResult) -> str:
    assert result.time is not None
    estimate = result.time
    parts = [
        f"{estimate.iterations:,} iterations {duration(estimate.train_s)}",
        f"{estimate.validations:,} validations {duration(estimate.validation_s)}",
        f"{estimate.checkpoints:,} checkpoints {duration(estimate.checkpoint_s)}",
        f"{'start' if estimate.starts == 1 else f'{estimate.starts:,} starts'} {duration(estimate.start_s)}",
        *([f"tests {duration(estimate.test_s)}"] if estimate.test_s else []),
    ]
    return f"{duration(estimate.expected_s)}: {', '.join(parts)}"


def _done(times: Timetable, result: DryRunResult) -> str:
    if times.ends_at is None or times.begins_at is None:
        return "unknown, or not within a year"
    begins = "if it begins now" if times.begins_at - time.time() < 60 else f"if it begins {_hour(times.begins_at)}"
    window = f", in its window {result.request.spec.lq.window}" if result.request.spec.lq.window else ""
    due = f"; due {_hour(times.due_at)}" if times.due_at is not None else ""
    return f"{_hour(times.ends_at)}, {begins}{window}{due}"


def _disk(app: App, result: DryRunResult) -> str:
    from orchestrator.estimation import disk as budget

    need = result.request.need
    whole = f"{fmt.size(need.total)} at most of {fmt.size(budget.free_for(app))} that are free"
    written = result.measured.checkpoint_bytes if result.measured is not None else None
    if written is None:
        return whole
    return f"{whole}; a checkpoint of {fmt.size(written)} was written and verified"


def _data(result: DryRunResult) -> str:
    assert result.data is not None
    data = result.data
    padding = f", padding {data.padding_share:.0%}" if data.padding_share is not None else ""
    cut = f"{data.truncated:,} cut" if data.truncated else "none cut"
    return (
        f"{data.rows:,} rows, {cut}{padding}; {data.valid_rows:,} to validate; "
        f"{data.epochs(result.request.spec):.3g} epochs"
    )


def print_if_moved(result: DryRunResult, before: Timetable, now: Timetable) -> None:
    """Say if a job ends later than printed before, because a job behind it may start first."""
    if before.ends_at is not None and now.ends_at is not None and now.ends_at > before.ends_at:
        hour = _hour(now.ends_at)
        click.echo(f"{_who(result.request)}: done {hour}, later than printed above: a job behind it may begin sooner")


def print_total(results: Sequence[DryRunResult], times: Sequence[Timetable], *, slots: int, whole_queue: bool) -> None:
    """Print when all of them are done."""
    if not results:
        click.echo("nothing waits in the queue")
        return
    if len(results) < 2 and not whole_queue:
        return
    counted = [hour for one, hour in zip(results, times, strict=True) if one.counts and hour.ends_at is not None]
    ends = max((hour.ends_at for hour in counted if hour.ends_at is not None), default=None)
    total = sum(one.time.expected_s for one in results if one.counts and one.time is not None)
    left_out = len(results) - len(counted)
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


def cautions_of(result: DryRunResult, times: Timetable) -> list[dict[str, str]]:
    """Return the warnings about one job."""
    from jobs.estimates import cautions

    late = (
        cautions.of_time(times.ends_at, times.due_at, ends=_hour(times.ends_at), due=_hour(times.due_at or 0.0))
        if times.ends_at is not None
        else []
    )
    return [{"code": one.code, "text": one.text} for one in (*result.cautions, *late)]
