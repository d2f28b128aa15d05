"""The night as a chart of plain characters: hours as its axis, one bar a job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.planning.plan import JobPlan

SHORTEST_S, LONGEST_S = 3600.0, 14 * 24 * 3600.0
MOST_BARS = 30
_NAME = 12
_STEPS_H = (0.25, 0.5, 1, 2, 3, 6, 12, 24, 48, 96)
_LABEL = 7  # an hour and the space after it


def chart(jobs: Sequence[JobPlan], *, now: float, width: int, plain: bool) -> Iterator[str]:
    """Yield the lines of the chart; none where nothing starts at a time that is known.

    Args:
        jobs: in the order of their bars.
        now: unix seconds: the left end of the axis.
        width: characters of a line, at most.
        plain: bars of ASCII characters, for a pipe.
    """
    drawn = [one for one in jobs if one.times.start is not None]
    if not drawn:
        return
    cells = width - _NAME - 1
    ends = [one.times.end or one.times.start or now for one in drawn]
    ends += [one.deadline for one in drawn if one.deadline is not None]
    seconds = min(max(max(ends) - now, SHORTEST_S) * 1.02, LONGEST_S)
    yield ""
    yield f"{'':<{_NAME}} {_axis(now, seconds, cells)}".rstrip()
    for one in drawn[:MOST_BARS]:
        yield f"{name_of(one):<{_NAME}.{_NAME}} {_bar(one, now, seconds, cells, plain=plain)}".rstrip()
    if len(drawn) > MOST_BARS:
        yield f"{'':<{_NAME}} and {len(drawn) - MOST_BARS} more"
    if any(one.deadline is not None for one in drawn):
        yield f"{'':<{_NAME}} | is a deadline"
    yield ""


def name_of(one: JobPlan) -> str:
    """Return what a job is called in the chart and below it."""
    return f"job {one.id}" if one.id is not None else one.source.name if one.source is not None else one.name


def _axis(now: float, seconds: float, cells: int) -> str:
    """Return whole hours at their places, as many as there is space for."""
    wanted = seconds / max(1, cells // _LABEL) / 3600
    step = next((step for step in _STEPS_H if step >= wanted), _STEPS_H[-1])
    line = [" "] * cells
    moment = _next_mark(now, step)
    while (place := int((moment.timestamp() - now) / seconds * cells)) + _LABEL - 2 < cells:
        label = f"{moment:%H:%M}" if step < 24 else f"{moment:%d %b}"
        line[place : place + len(label)] = label
        moment = datetime.fromtimestamp(moment.timestamp() + step * 3600)  # noqa: DTZ006 the wall's own hours
    return "".join(line)


def _next_mark(now: float, step: float) -> datetime:
    local = datetime.fromtimestamp(now)  # noqa: DTZ006 the wall's own hours
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0)
    passed = (local - midnight).total_seconds() / 3600
    return midnight + timedelta(hours=(int(passed / step) + 1) * step)


def _bar(one: JobPlan, now: float, seconds: float, cells: int, *, plain: bool) -> str:
    full, open_end = ("=", "?") if plain else ("█", "░")
    line = [" "] * cells
    for start, end in one.times.stints:
        first = _cell(start, now, seconds, cells)
        last = cells - 1 if end is None else max(first, _cell(end, now, seconds, cells) - 1)
        line[first : last + 1] = (full if end is not None else open_end) * (last + 1 - first)
    if one.deadline is not None and now <= one.deadline <= now + seconds:
        line[_cell(one.deadline, now, seconds, cells)] = "|"
    return "".join(line)


def _cell(moment: float, now: float, seconds: float, cells: int) -> int:
    return min(max(int((moment - now) / seconds * cells), 0), cells - 1)
