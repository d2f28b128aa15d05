"""`lq plan`: memory, disk, a table and a chart of the queue, and what to change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator.cli.views.terminal import UNCUT, Column, Fitted, fitted_table, labelled
from orchestrator.formatting import text as fmt

if TYPE_CHECKING:
    from rich.console import RenderableType

    from jobs.estimates.estimate import MemoryEstimate
    from orchestrator.planning.plan import JobPlan, QueuePlan

_GB = 1e9
_STYLES = {"fits": "good", "tight": "careful", "does not fit": "bad"}
_SHORT_VERDICTS = {"fits": "fits", "tight": "tight", "does not fit": "no"}
_RESUMABLE = ("held", "paused")
_MADE_BY = {"lq": "lq", "user": "you"}


def render(plan: QueuePlan) -> RenderableType:
    """Return the view of a plan."""
    return Fitted(lambda width: Group(*_head(plan), *_body(plan, width)))


def _head(plan: QueuePlan) -> Iterator[RenderableType]:
    limits = sorted({job.limit for job in plan.jobs})
    limit = " to ".join(dict.fromkeys(_gb(limit) for limit in (*limits[:1], *limits[-1:])))
    of = f"limit {limit} GB of " if limits else ""
    yield _fact("memory", f"{of}{_gb(plan.recommended)} GB ({plan.recommended_by})")
    is_enough = plan.disk_need + plan.disk_floor <= plan.disk_free
    need = f"these jobs may write {fmt.size(plan.disk_need)}, and {fmt.size(plan.disk_floor)} must stay free"
    verdict = "enough" if is_enough else "too little; free space with: lq prune --all"
    yield _fact("disk", f"{need}; {fmt.size(plan.disk_free)} free: {verdict}", "" if is_enough else "bad")
    if plan.queue_paused:
        yield _fact("queue", "paused; the times assume that it is resumed now: lq resume --queue", "careful")


def _fact(label: str, text: str, style: str = "") -> RenderableType:
    return labelled(f"{label}:", text, style, width=7)


def _body(plan: QueuePlan, width: int) -> Iterator[RenderableType]:
    if not plan.jobs:
        yield "nothing is queued; plan a file: lq plan config.yaml"
        return
    yield fitted_table(_columns(plan), width)
    is_pipe = width >= UNCUT
    for line in queue_chart(plan.jobs, now=plan.now, width=80 if is_pipe else width, plain=is_pipe):
        yield Text(line, no_wrap=True)
    for job in plan.jobs:
        for text in _remarks(job, plan.now):
            yield labelled(f"{label_of(job)}:", text)
        if job.verdict in ("tight", "does not fit"):
            yield from _fit(job)


def _columns(plan: QueuePlan) -> list[Column]:
    jobs = plan.jobs
    memory = [job.memory for job in jobs]
    verdicts = [Text(job.verdict or "unknown", _STYLES.get(job.verdict or "", "")) for job in jobs]
    durations = [fmt.short_duration(job.time.expected_s if job.time is not None else None) for job in jobs]
    return [
        Column("id", [str(job.id) if job.id is not None else fmt.NONE for job in jobs]),
        Column("name", [job.name for job in jobs], right=False, is_name=True),
        Column("GB", [_gb(one.expected) if one is not None else fmt.NONE for one in memory], drop=1),
        Column("range", [_range(one) if one is not None else "" for one in memory], right=False, drop=3),
        Column("memory", verdicts, right=False),
        Column("time", durations, drop=2),
        Column("start", [_start(job, plan.now) for job in jobs]),
        Column("end", [_time(job.times.end, plan.now) for job in jobs]),
        Column("deadline", [_deadline(job) for job in jobs]),
    ]


def _start(job: JobPlan, now: float) -> str:
    return "running" if job.status == "running" and job.times.start == now else _time(job.times.start, now)


def _time(moment: float | None, now: float) -> str:
    return "unknown" if moment is None else fmt.short_time(moment, now)


def _deadline(job: JobPlan) -> str:
    if job.deadline is None:
        return ""
    late = job.times.late_s
    if late is None:
        return "unknown"
    return f"missed by {fmt.short_duration(late)}" if late > 0 else f"met by {fmt.short_duration(-late)}"


def _remarks(job: JobPlan, now: float) -> Iterator[str]:
    """Yield what is unknown about a job, and what the user should do."""
    times = job.times
    if job.time is None:
        yield f"its duration is unknown; measure it: lq check {_argument(job)}"
    if times.behind is not None and times.behind == job.id:
        if job.status in _RESUMABLE:
            yield f"{job.status}; let it run: lq resume {job.id}"
        else:
            yield "does not end within a year, or waits for a job that waits for it"
    elif times.behind is not None and job.time is not None:
        which = f"job {times.behind}" if times.behind > 0 else "a file before it"
        yield f"its {'start' if times.start is None else 'end'} is unknown, because the duration of {which} is"
    if job.deadline is not None and times.late_s is not None and times.late_s > 0:
        eta = f"ETA {fmt.short_time(times.end, now)} " if times.end is not None else ""
        yield f"deadline {fmt.short_time(job.deadline, now)} will be missed: {eta}({fmt.duration(times.late_s)} late)"
    yield from job.notes


def _argument(job: JobPlan) -> str:
    """Return the argument with which `lq check` checks a job."""
    if job.source is None:
        return "--queue"
    if not job.source.is_absolute():
        return "-"  # from standard input
    here = Path.cwd()
    return str(job.source.relative_to(here) if job.source.is_relative_to(here) else job.source)


def _fit(job: JobPlan) -> Iterator[RenderableType]:
    """Yield how much memory a job needs, and the steps that make it fit."""
    if job.memory is not None:
        needed = f"{_expected(job.memory)} of {_gb(job.usable)} GB"
        yield labelled(f"{label_of(job)}:", f"{job.verdict}: {needed}, {job.memory.because}")
    table = Table.grid(padding=(0, 1, 0, 0))
    for column in range(4):
        table.add_column(no_wrap=column < 3)
    for step in job.steps:
        change = f"{_MADE_BY[step.by]}: {step.text}"
        table.add_row("->" if step.first else "  ", _expected(step.memory), _SHORT_VERDICTS[step.verdict], change)
    if job.steps:
        yield Padding.indent(table, 1)
    if not any(step.first for step in job.steps):
        yield "    none of these is sure to fit: use a smaller or a quantized model, or shorter rows"


def _expected(memory: MemoryEstimate) -> str:
    return f"{_gb(memory.expected)} ({_range(memory)})"


def _range(memory: MemoryEstimate) -> str:
    return f"{_gb(memory.low)}-{_gb(memory.high)}"


def _gb(size: int) -> str:
    """Return gigabytes with three digits, or with two decimals below 1 GB."""
    value = size / _GB
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


SHORTEST_S, LONGEST_S = 3600.0, 14 * 24 * 3600.0
MOST_BARS = 30
_NAME_WIDTH = 12
_STEPS_H = (0.25, 0.5, 1, 2, 3, 6, 12, 24, 48, 96)
_LABEL_WIDTH = 7  # a time and the space after it


def queue_chart(jobs: Sequence[JobPlan], *, now: float, width: int, plain: bool) -> Iterator[str]:
    """Yield the lines of the chart, at most `width` columns from `now` on; none if no start is known."""
    drawn = [job for job in jobs if job.times.start is not None]
    if not drawn:
        return
    cells = width - _NAME_WIDTH - 1
    ends = [job.times.end or job.times.start or now for job in drawn]
    ends += [job.deadline for job in drawn if job.deadline is not None]
    seconds = min(max(max(ends) - now, SHORTEST_S) * 1.02, LONGEST_S)
    yield ""
    yield f"{'':<{_NAME_WIDTH}} {_axis(now, seconds, cells)}".rstrip()
    for job in drawn[:MOST_BARS]:
        bar = _chart_bar(job, now, seconds, cells, plain=plain)
        yield f"{label_of(job):<{_NAME_WIDTH}.{_NAME_WIDTH}} {bar}".rstrip()
    if len(drawn) > MOST_BARS:
        yield f"{'':<{_NAME_WIDTH}} and {len(drawn) - MOST_BARS} more"
    if any(job.deadline is not None for job in drawn):
        yield f"{'':<{_NAME_WIDTH}} | is a deadline"
    yield ""


def label_of(job: JobPlan) -> str:
    """Return `job 4`, or the name of a file that is not queued."""
    if job.id is not None:
        return f"job {job.id}"
    return job.source.name if job.source is not None else job.name


def _axis(now: float, seconds: float, cells: int) -> str:
    """Return round times at their places, as many as fit."""
    hours_per_label = seconds / max(1, cells // _LABEL_WIDTH) / 3600
    step = next((step for step in _STEPS_H if step >= hours_per_label), _STEPS_H[-1])
    line = [" "] * cells
    local = datetime.fromtimestamp(now)  # noqa: DTZ006 local time on purpose
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    moment = midnight + timedelta(hours=(int((local - midnight).total_seconds() / 3600 / step) + 1) * step)
    while (place := int((moment.timestamp() - now) / seconds * cells)) + _LABEL_WIDTH - 2 < cells:
        label = f"{moment:%H:%M}" if step < 24 else f"{moment:%d %b}"
        line[place : place + len(label)] = label
        moment = datetime.fromtimestamp(moment.timestamp() + step * 3600)  # noqa: DTZ006 local time on purpose
    return "".join(line)


def _chart_bar(job: JobPlan, now: float, seconds: float, cells: int, *, plain: bool) -> str:
    full, open_end = ("=", "?") if plain else ("█", "░")
    line = [" "] * cells
    for start, end in job.times.stints:
        first = _cell(start, now, seconds, cells)
        last = cells - 1 if end is None else max(first, _cell(end, now, seconds, cells) - 1)
        line[first : last + 1] = (full if end is not None else open_end) * (last + 1 - first)
    if job.deadline is not None and now <= job.deadline <= now + seconds:
        line[_cell(job.deadline, now, seconds, cells)] = "|"
    return "".join(line)


def _cell(moment: float, now: float, seconds: float, cells: int) -> int:
    return min(max(int((moment - now) / seconds * cells), 0), cells - 1)
