"""The plan of the queue: memory, disk, a table, a chart, and what to change."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli import output
from orchestrator.cli.views import queue_chart
from orchestrator.formatting import text as fmt

if TYPE_CHECKING:
    from rich.table import Table

    from orchestrator.planning.plan import FitStep, JobPlan, QueuePlan

_GB = 1e9
_COLOURS = {"fits": "green", "tight": "yellow", "does not fit": "red"}

_LET_GO_ON = {"held": "release", "paused": "resume"}
"""The verb that lets a job go on, by its status."""

_BY = {"lq": "lq: ", "user": "you: "}
"""Who makes a change: the worker after an out-of-memory, or only the user."""

_SHORT = {"fits": "fits", "tight": "tight", "does not fit": "no"}

_WORDS: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
"""How a sentence is cut where a line ends."""


def print_plan(plan: QueuePlan) -> None:
    """Print a plan: memory, disk, a table, a chart, and what to change."""
    console = output.console()
    limits = sorted({one.limit for one in plan.jobs})
    shown = " to ".join(_gb(limit) for limit in dict.fromkeys((*limits[:1], *limits[-1:])))
    limit = f"limit {shown} GB, of " if limits else ""
    click.echo(f"memory: {limit}{_gb(plan.recommended)} GB ({plan.recommended_by})")
    click.echo(_disk(plan))
    if plan.queue_paused:
        click.echo("queue:  paused; the times hold if it goes on now: lq resume --queue")
    if not plan.jobs:
        click.echo("nothing is queued; plan a file: lq plan config.yaml")
        return
    console.print(_table(plan, wide=console.width >= 100))
    width = console.width if console.is_terminal else min(console.width, 80)
    for line in queue_chart.chart(plan.jobs, now=plan.now, width=width, plain=not sys.stdout.isatty()):
        click.echo(line)
    for one in plan.jobs:
        for line in _about(one):
            click.echo(line if len(line) <= width else textwrap.fill(line, width, subsequent_indent="    ", **_WORDS))


def _disk(plan: QueuePlan) -> str:
    enough = plan.disk_need + plan.disk_floor <= plan.disk_free
    return (
        f"disk:   these jobs may take {fmt.size(plan.disk_need)} and {fmt.size(plan.disk_floor)} stay free, "
        f"of {fmt.size(plan.disk_free)}: {'enough' if enough else 'too little; make room: lq prune --all'}"
    )


def _table(plan: QueuePlan, *, wide: bool) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2 if wide else 1, 0, 0), header_style="dim")
    table.add_column("id", justify="right")
    table.add_column("name", min_width=6)  # the only one that gives way where the terminal is narrow
    table.add_column("GB", justify="right", no_wrap=True)
    table.add_column("range", no_wrap=True)
    table.add_column("memory", no_wrap=True)
    for title in ("time", "start", "end", "deadline"):
        table.add_column(title, justify="right", no_wrap=True)
    for one in plan.jobs:
        memory = one.memory
        table.add_row(
            str(one.id) if one.id is not None else fmt.NONE,
            Text(one.name, no_wrap=True, overflow="ellipsis"),
            _gb(memory.expected) if memory is not None else fmt.NONE,
            f"{_gb(memory.low)}-{_gb(memory.high)}" if memory is not None else "",
            Text(one.verdict or "not known", style=_COLOURS.get(one.verdict or "", "")),
            fmt.short_duration(one.time.expected_s) if one.time is not None else fmt.NONE,
            "runs" if one.status == "running" and one.times.start == plan.now else _hour(one.times.start, plan.now),
            _hour(one.times.end, plan.now),
            _deadline(one),
        )
    return table


def _about(one: JobPlan) -> Iterator[str]:
    """Yield what stands below the table about a job: what is not known, what is tight and how to change that."""
    name = queue_chart.name_of(one)
    behind = one.times.behind
    if one.time is None:
        yield f"{name}: its time is unknown; measure it: lq check {_typed(one)}"
    if behind is not None and behind == one.id and one.status in _LET_GO_ON:
        yield f"{name}: does not start by itself; let it go on: lq {_LET_GO_ON[one.status]} {one.id}"
    elif behind is not None and behind == one.id:
        yield f"{name}: is not done within a year, or waits for jobs that wait for it"
    elif behind is not None and one.time is not None:
        what = "starts" if one.times.start is None else "ends"
        yield f"{name}: when it {what} is not known, after {f'job {behind}' if behind > 0 else 'a file before it'}"
    if one.times.late_s is not None and one.times.late_s > 0:
        yield f"{name}: ends {fmt.short_duration(one.times.late_s)} after its deadline"
    for note in one.notes:
        yield f"{name}: {note}"
    if one.verdict in ("tight", "does not fit"):
        yield from _steps(name, one)


def _typed(one: JobPlan) -> str:
    """Return what one types to have a job checked."""
    if one.source is None:
        return "--queue"
    if not one.source.is_absolute():
        return "-"  # it came on standard input
    here = Path.cwd()
    return str(one.source.relative_to(here) if one.source.is_relative_to(here) else one.source)


def _steps(name: str, one: JobPlan) -> Iterator[str]:
    memory = one.memory
    if memory is not None:
        needed = f"{_gb(memory.expected)} ({_gb(memory.low)}-{_gb(memory.high)})"
        yield f"{name}: {one.verdict}: {needed} of {_gb(one.usable)} GB"
        yield f"    {memory.because}"
    for step in one.steps:
        sign = "->" if step.first else "  "
        yield f" {sign} {_range(step):<18} {_SHORT[step.verdict]:<5}  {_BY[step.by]}{step.text}"
    if not any(step.first for step in one.steps):
        yield "    none of these fits for sure: use a smaller or a quantized model, or shorter rows"


def _range(step: FitStep) -> str:
    memory = step.memory
    return f"{_gb(memory.expected)} ({_gb(memory.low)}-{_gb(memory.high)})"


def _deadline(one: JobPlan) -> str:
    if one.deadline is None:
        return ""
    if one.times.late_s is None:
        return "not known"
    late = one.times.late_s
    return f"missed by {fmt.short_duration(late)}" if late > 0 else f"met by {fmt.short_duration(-late)}"


def _hour(moment: float | None, now: float) -> str:
    """Return an hour, with its day where that is not today."""
    if moment is None:
        return "not known"
    local, today = datetime.fromtimestamp(moment), datetime.fromtimestamp(now)  # noqa: DTZ006 the wall's own hours
    if local.date() == today.date():
        return f"{local:%H:%M}"
    return f"{local:%a %H:%M}" if (local.date() - today.date()).days < 7 else f"{local:%d %b %H:%M}"


def _gb(size: int) -> str:
    """Return gigabytes to three digits, two at least after the point where there are few."""
    value = size / _GB
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
