"""Times of day and daily time windows in a time zone: "07:00", "23:00-07:00".

A time of day is converted to a moment separately for each day, so that a window keeps its local times when the clocks
change. A time that a day skips is moved forward by the skipped length; of a time that occurs twice, the first counts.

In all functions, times are in unix seconds, and the zone None is the zone of the machine.
"""

from __future__ import annotations

import dataclasses
import re
from datetime import date, datetime, time, timedelta, tzinfo

_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_DATE_AND_TIME = re.compile(r"(\d{4}-\d{2}-\d{2})[ T]+(\S+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeWindow:
    """A daily window; it ends on the next day if `end` is not later than `start`."""

    start: int  # minutes after midnight, inclusive
    end: int  # minutes after midnight, exclusive; differs from `start`


@dataclasses.dataclass(frozen=True, kw_only=True)
class DueTime:
    """A time of day on a given day, or its next occurrence."""

    day: date | None
    minute: int  # minutes after midnight


def parse_time(text: str) -> int:
    """Return the minutes after midnight of "07:00"; a ValueError says what is expected."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError('a time such as "07:00", in quotes')
    return 60 * int(match[1]) + int(match[2])


def parse_window(text: str) -> TimeWindow:
    """Read "23:00-07:00"; a ValueError says what is expected."""
    first, dash, last = text.partition("-")
    try:
        window = TimeWindow(start=parse_time(first), end=parse_time(last))
    except ValueError:
        dash = ""
    if not dash or window.start == window.end:
        raise ValueError('two different times such as "23:00-07:00", in quotes')
    return window


def parse_due(text: str) -> DueTime:
    """Read "07:30" or "2026-12-24 18:00"; a ValueError says what is expected."""
    match = _DATE_AND_TIME.fullmatch(text.strip())
    try:
        if match is None:
            return DueTime(day=None, minute=parse_time(text))
        return DueTime(day=date.fromisoformat(match[1]), minute=parse_time(match[2]))
    except ValueError as error:
        expected = 'a time such as "07:30", or a date and a time such as "2026-12-24 18:00", in quotes'
        raise ValueError(expected) from error


def due_at(due: DueTime, asked_at: float, zone: tzinfo | None) -> float:
    """Return the moment of a due time; without a day it is the first occurrence after `asked_at`."""
    if due.day is not None:
        return _moment(due.day, due.minute, zone)
    day = _day(asked_at, zone)
    moment = _moment(day, due.minute, zone)
    return moment if moment > asked_at else _moment(day + timedelta(days=1), due.minute, zone)


def opens(window: TimeWindow, now: float, zone: tzinfo | None) -> float:
    """Return when the window opens next; `now` if it is open."""
    if until(window, now, zone) is not None:
        return now
    today = _day(now, zone)
    starts = (_moment(today + timedelta(days=days), window.start, zone) for days in range(-1, 3))
    # a window that a clock change skips on one day (02:00-02:30) opens on the next
    return next(start for start in starts if start > now and until(window, start, zone) is not None)


def ends_after(window: TimeWindow | None, start: float, seconds: float, zone: tzinfo | None) -> float:
    """Return when `seconds` of work end that starts no earlier than `start` and runs only inside the window.

    Without a window, the work runs at all times.
    """
    if window is None:
        return start + seconds
    now = start
    while True:
        now = opens(window, now, zone)
        closes = until(window, now, zone)
        assert closes is not None
        if now + seconds <= closes:
            return now + seconds
        seconds -= closes - now
        now = closes


def until(window: TimeWindow, now: float, zone: tzinfo | None) -> float | None:
    """Return when the window closes; None if it is not open."""
    today = _day(now, zone)
    for day in (today - timedelta(days=1), today):
        end_day = day if window.start < window.end else day + timedelta(days=1)
        end = _moment(end_day, window.end, zone)
        if _moment(day, window.start, zone) <= now < end:
            return end
    return None


def latest(minute: int, now: float, zone: tzinfo | None) -> tuple[date, float]:
    """Return the day and the moment of the last occurrence of a time of day (minutes after midnight) until `now`."""
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
