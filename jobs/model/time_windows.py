"""Hours of the day in a time zone: "07:00", "23:00-07:00". Pure: the moment and the zone are arguments.

An hour is turned into a moment day by day, so a span keeps its hours on the wall whatever the clocks do at night. An
hour that a day skips (the clocks go forward) is taken as much later; of one that comes twice, the first counts.
"""

from __future__ import annotations

import dataclasses
import re
from datetime import date, datetime, time, timedelta, tzinfo

_HOUR = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_DATE_AND_HOUR = re.compile(r"(\d{4}-\d{2}-\d{2})[ T]+(\S+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeWindow:
    """From one hour to another, over midnight where the second is not later."""

    start: int  # minutes after midnight, part of it
    end: int  # minutes after midnight, no longer part of it; another than `start`


def parse_time(text: str) -> int:
    """Read "07:00" as minutes after midnight.

    Raises:
        ValueError: says what is expected.
    """
    found = _HOUR.fullmatch(text.strip())
    if found is None:
        raise ValueError('an hour such as "07:00", in quotes')
    return 60 * int(found[1]) + int(found[2])


def parse_window(text: str) -> TimeWindow:
    """Read "23:00-07:00".

    Raises:
        ValueError: says what is expected.
    """
    first, dash, last = text.partition("-")
    try:
        span = TimeWindow(start=parse_time(first), end=parse_time(last))
    except ValueError:
        dash = ""
    if not dash or span.start == span.end:
        raise ValueError('two different hours such as "23:00-07:00", in quotes')
    return span


@dataclasses.dataclass(frozen=True, kw_only=True)
class DueTime:
    """An hour by which something should be done: of one day, or of the next that comes."""

    day: date | None
    minute: int  # minutes after midnight


def parse_due(text: str) -> DueTime:
    """Read "07:30" or "2026-12-24 18:00".

    Raises:
        ValueError: says what is expected.
    """
    found = _DATE_AND_HOUR.fullmatch(text.strip())
    try:
        return DueTime(
            day=date.fromisoformat(found[1]) if found is not None else None,
            minute=parse_time(found[2] if found is not None else text),
        )
    except ValueError as error:
        raise ValueError(
            'an hour such as "07:30", or a day and an hour such as "2026-12-24 18:00", in quotes'
        ) from error


def due_at(due: DueTime, asked_at: float, zone: tzinfo | None) -> float:
    """Return the moment something is due, in unix seconds.

    Args:
        due: the hour, of a day or of the next that comes.
        asked_at: unix seconds; an hour without a day is the first one after it.
        zone: whose hours; None for the machine's own zone.
    """
    if due.day is not None:
        return _moment(due.day, due.minute, zone)
    day = _day(asked_at, zone)
    moment = _moment(day, due.minute, zone)
    return moment if moment > asked_at else _moment(day + timedelta(days=1), due.minute, zone)


def opens(span: TimeWindow, now: float, zone: tzinfo | None) -> float:
    """Return when the span begins next, in unix seconds; `now` where it holds already.

    Args:
        span: hours of every day.
        now: unix seconds.
        zone: whose hours; None for the machine's own zone.
    """
    if until(span, now, zone) is not None:
        return now
    today = _day(now, zone)
    starts = (_moment(today + timedelta(days=days), span.start, zone) for days in range(-1, 3))
    # a span that the clocks swallow whole on one day (02:00-02:30 where they go forward) holds on the next
    return next(start for start in starts if start > now and until(span, start, zone) is not None)


def ends_after(span: TimeWindow | None, start: float, seconds: float, zone: tzinfo | None) -> float:
    """Return when so many seconds of work that begins no earlier than `start` are done, within the span's hours.

    Args:
        span: hours of every day; None for all of them.
        start: unix seconds.
        seconds: of work.
        zone: whose hours; None for the machine's own zone.
    """
    if span is None:
        return start + seconds
    now = start
    while True:
        now = opens(span, now, zone)
        closes = until(span, now, zone)
        assert closes is not None
        if now + seconds <= closes:
            return now + seconds
        seconds -= closes - now
        now = closes


def until(span: TimeWindow, now: float, zone: tzinfo | None) -> float | None:
    """Return when the span that holds `now` ends, None where none does.

    Args:
        span: hours of every day.
        now: unix seconds.
        zone: whose hours; None for the machine's own zone.
    """
    today = _day(now, zone)
    for day in (today - timedelta(days=1), today):
        end_day = day if span.start < span.end else day + timedelta(days=1)
        end = _moment(end_day, span.end, zone)
        if _moment(day, span.start, zone) <= now < end:
            return end
    return None


def latest(minute: int, now: float, zone: tzinfo | None) -> tuple[date, float]:
    """Return the day and the moment (unix seconds) at which it was this hour last, `now` included.

    Args:
        minute: minutes after midnight.
        now: unix seconds.
        zone: whose hours; None for the machine's own zone.
    """
    day = _day(now, zone)
    moment = _moment(day, minute, zone)
    if moment > now:
        day -= timedelta(days=1)
        moment = _moment(day, minute, zone)
    return day, moment


def _day(now: float, zone: tzinfo | None) -> date:
    return datetime.fromtimestamp(now, tz=zone).date()


def _moment(day: date, minute: int, zone: tzinfo | None) -> float:
    return datetime.combine(day, time(minute // 60, minute % 60), tzinfo=zone).timestamp()
