"""Numbers, sizes, durations and times as text, for the terminal, the report and notifications.

An unknown value (None) becomes `NONE`. The `short_` forms fit a column; the others stand in sentences.
"""

from __future__ import annotations

import math
import time
from datetime import datetime, tzinfo

from jobs.model.text import NONE, counted, duration, listed, percent, size

__all__ = [
    "NONE", "NOT_MEASURED", "clock", "counted", "duration", "figure", "listed", "loss", "loss_with_error",
    "loss_with_interval", "percent", "printable", "short_duration", "short_loss", "short_time", "size", "timestamp",
    "upcoming", "whole",
]  # fmt: skip

_NIGHT_S = 18 * 3600.0

NOT_MEASURED = "not measured"
"""Text of an unknown value in a sentence."""


def printable(text: str) -> str:
    """Return text without control characters, which could move the cursor of a terminal."""
    return "".join(char if char.isprintable() else " " for char in text)


def whole(value: int | None) -> str:
    """Return an integer with thousands separators."""
    return NONE if value is None else f"{value:,}"


def figure(value: float | None, unit: str = "") -> str:
    """Return a number with three digits, or with all digits before the point: 0.853 it/s, 1,812 tokens/s."""
    if value is None:
        return NONE
    text = f"{value:,.0f}" if math.isfinite(value) and abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def loss(value: float | None) -> str:
    """Return a loss with four decimals, or with three digits if it is below 0.001."""
    if value is None:
        return NONE
    return f"{value:.4f}" if not math.isfinite(value) or abs(value) >= 0.001 or value == 0 else f"{value:.2e}"


def short_loss(value: float | None) -> str:
    """Return a loss with three decimals."""
    return NONE if value is None else f"{value:.3f}"


def loss_with_error(value: float, standard_error: float | None) -> str:
    """Return a loss and its standard error, if that was measured: 0.1670 ± 0.0120."""
    return loss(value) if standard_error is None else f"{loss(value)} ± {loss(standard_error)}"


def loss_with_interval(value: float, low: float | None, high: float | None) -> str:
    """Return a loss and its interval, if that was measured: 0.1670 (0.1432 to 0.1911)."""
    return loss(value) if low is None or high is None else f"{loss(value)} ({loss(low)} to {loss(high)})"


def short_duration(seconds: float | None) -> str:
    """Return a duration for a column: 41s, 9m05, 12m, 3h12, 2d05."""
    if seconds is None or not math.isfinite(seconds):
        return NONE
    minutes = int(seconds) // 60
    if minutes < 1:
        return f"{int(seconds)}s"
    if minutes < 60:
        return f"{minutes}m{int(seconds) % 60:02d}" if minutes < 10 else f"{minutes}m"
    hours, rest = divmod(minutes, 60)
    return f"{hours}h{rest:02d}" if hours < 48 else f"{hours // 24}d{hours % 24:02d}"


def timestamp(moment: float | None, zone: tzinfo | None = None) -> str:
    """Return a date, time and offset: 2026-01-31 22:04:05 +0100. `zone` None is the zone of the machine."""
    return NONE if moment is None else f"{_local(moment, zone):%Y-%m-%d %H:%M:%S %z}"


def clock(moment: float | None) -> str:
    """Return a time with seconds, with its date unless that is today."""
    if moment is None:
        return NONE
    local = _local(moment)
    return f"{local:%H:%M:%S}" if local.date() == _local(time.time()).date() else f"{local:%Y-%m-%d %H:%M:%S}"


def short_time(moment: float | None, now: float | None = None, zone: tzinfo | None = None) -> str:
    """Return a time as short as it is clear: 22:03 (also for tomorrow morning), Fri 22:03, 27 Nov 22:03, 2025-11-27."""
    if moment is None:
        return NONE
    now = time.time() if now is None else now
    local, today = _local(moment, zone), _local(now, zone)
    days = (local.date() - today.date()).days
    if days == 0 or (days == 1 and local.hour < 12 and moment - now < _NIGHT_S):
        return f"{local:%H:%M}"
    if abs(days) < 7:
        return f"{local:%a %H:%M}"
    return f"{local.day} {local:%b %H:%M}" if local.year == today.year else f"{local:%Y-%m-%d}"


def upcoming(moment: float, now: float | None = None) -> str:
    """Return a future time for a sentence: at 22:00, tomorrow at 07:30, on Fri 27 Nov at 22:00."""
    local = _local(moment)
    days = (local.date() - _local(time.time() if now is None else now).date()).days
    if days not in (0, 1):
        return f"on {local:%a} {local.day} {local:%b} at {local:%H:%M}"
    return f"{'tomorrow ' if days else ''}at {local:%H:%M}" + (f":{local:%S}" if local.second else "")


def _local(moment: float, zone: tzinfo | None = None) -> datetime:
    return datetime.fromtimestamp(moment, tz=zone).astimezone(zone)
