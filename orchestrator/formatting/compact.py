"""Numbers, durations and times in the short forms that a terminal column needs."""

from __future__ import annotations

import math
import shlex
import time
from collections.abc import Iterable
from datetime import datetime

NONE = "–"


def clean(text: str) -> str:
    """Return foreign text without what would move the cursor."""
    return "".join(char if char.isprintable() else " " for char in text)


def quoted(word: str) -> str:
    """Return a word as one types it in a shell."""
    return shlex.quote(word)


def listed(words: Iterable[object]) -> str:
    """Return `3, 5 and 8`."""
    *most, last = map(str, words)
    return f"{', '.join(most)} and {last}" if most else last


def loss(value: float | None) -> str:
    """Return a loss to three decimals."""
    if value is None:
        return NONE
    return f"{value:.3f}" if math.isfinite(value) else str(value)


def speed(value: float | None) -> str:
    """Return iterations per second to three digits."""
    return NONE if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def size(count: int) -> str:
    """Return bytes as disks are sold: 12 kB, 1.2 MB, 3.4 GB."""
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= least:
            return f"{count / least:.3g} {unit}" if count < 100 * least else f"{count / least:.0f} {unit}"
    return f"{count} B"


def span(seconds: float | None) -> str:
    """Return a duration as short as a column needs it: 41s, 12m, 3h12, 2d05."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    minutes = int(seconds) // 60
    if minutes < 1:
        return f"{int(seconds)}s"
    if minutes < 60:
        return f"{minutes}m{int(seconds) % 60:02d}" if minutes < 10 else f"{minutes}m"
    hours, rest = divmod(minutes, 60)
    return f"{hours}h{rest:02d}" if hours < 48 else f"{hours // 24}d{hours % 24:02d}"


def clock(moment: float | None) -> str:
    """Return a local time, with the day where it is not today."""
    if moment is None:
        return NONE
    local = time.localtime(moment)
    form = "%H:%M:%S" if time.localtime()[:3] == local[:3] else "%Y-%m-%d %H:%M:%S"
    return time.strftime(form, local)


def ahead(moment: float, now: float | None = None) -> str:
    """Return a local time to come as a person says it: at 22:00, tomorrow at 07:30, on Fri 27 Nov at 22:00."""
    then = datetime.fromtimestamp(moment).astimezone()
    today = datetime.fromtimestamp(time.time() if now is None else now).astimezone()
    days = (then.date() - today.date()).days
    if days not in (0, 1):
        return f"on {then:%a} {then.day} {then:%b} at {then:%H:%M}"
    return f"{'tomorrow ' if days else ''}at {then:%H:%M}" + (f":{then:%S}" if then.second else "")


def moment(then: float | None, now: float | None = None) -> str:
    """Return a local time of the past as short as it is clear: 22:03, Fri 22:03, 27 Nov 22:03, 2025-11-27."""
    if then is None:
        return NONE
    local = datetime.fromtimestamp(then).astimezone()
    today = datetime.fromtimestamp(time.time() if now is None else now).astimezone()
    days = (today.date() - local.date()).days
    if not days:
        return f"{local:%H:%M}"
    if 0 < days < 7:
        return f"{local:%a %H:%M}"
    return f"{local.day} {local:%b %H:%M}" if local.year == today.year else f"{local:%Y-%m-%d}"


def soon(then: float, now: float | None = None) -> str:
    """Return a local time to come as a column needs it: 22:03, Fri 22:03, 27 Nov."""
    local = datetime.fromtimestamp(then).astimezone()
    today = datetime.fromtimestamp(time.time() if now is None else now).astimezone()
    days = (local.date() - today.date()).days
    if days < 1 or (days == 1 and local.hour < 12):
        return f"{local:%H:%M}"
    return f"{local:%a %H:%M}" if days < 7 else f"{local.day} {local:%b}"


def bar(done: int, whole: int, width: int) -> str:
    """Return a progress bar of so many characters."""
    share = min(max(done / whole, 0.0), 1.0) if whole else 0.0
    halves = int(share * width * 2)
    return "━" * (halves // 2) + "╸" * (halves % 2) + " " * (width - (halves + 1) // 2)
