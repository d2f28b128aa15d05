"""The queue as a bar chart: a time axis, and one bar for each job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.planning.plan import JobPlan

SHORTEST_S, LONGEST_S = 3600.0, 14 * 24 * 3600.0
MOST_BARS = 30
_NAME_WIDTH = 12
_STEPS_H = (0.25, 0.5, 1, 2, 3, 6, 12, 24, 48, 96)
_LABEL_WIDTH = 7  # a time and the space after it


def chart(jobs: Sequence[JobPlan], *, now: float, width: int, plain: bool) -> Iterator[str]:
    """Yield the lines of the chart; none if no start is known.

    Args:
        jobs: in the order of their bars.
        now: unix seconds; the left end of the axis.
        width: columns, at most.
        plain: draw ASCII characters, for a pipe.
    """
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
        bar = _bar(job, now, seconds, cells, plain=plain)
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
    moment = _next_mark(now, step)
    while (place := int((moment.timestamp() - now) / seconds * cells)) + _LABEL_WIDTH - 2 < cells:
        label = f"{moment:%H:%M}" if step < 24 else f"{moment:%d %b}"
        line[place : place + len(label)] = label
        moment = datetime.fromtimestamp(moment.timestamp() + step * 3600)  # noqa: DTZ006 local time on purpose
    return "".join(line)


def _next_mark(now: float, step: float) -> datetime:
    local = datetime.fromtimestamp(now)  # noqa: DTZ006 local time on purpose
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    passed = (local - midnight).total_seconds() / 3600
    return midnight + timedelta(hours=(int(passed / step) + 1) * step)


def _bar(job: JobPlan, now: float, seconds: float, cells: int, *, plain: bool) -> str:
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
