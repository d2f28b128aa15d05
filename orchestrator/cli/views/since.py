"""What `--since` takes: so long ago, the last time a clock showed an hour, or a moment."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta
from typing import Any

import click

_UNITS_S = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 24 * 3600.0, "w": 7 * 24 * 3600.0}
_AGO = re.compile(rf"(\d{{1,6}}) ?({'|'.join(sorted(_UNITS_S, key=len, reverse=True))})")
_HOUR = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?")
FORMS = "10min, 2h, 22:00 or 2026-01-31T22:00"


class Since(click.ParamType[float]):
    """A moment of the past, in unix seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        found = moment_of(str(value).strip(), time.time())
        if found is None:
            self.fail(f"{value!r} is not a time; write {FORMS}", param, ctx)
        return found


def moment_of(text: str, now: float) -> float | None:
    """Return a moment in unix seconds; None where the text names none.

    Args:
        text: such as 10min, 22:00 (the last time it was that), 2026-01-31T22:00 or 2026-01-31, in the machine's zone
            where it names none.
        now: unix seconds.
    """
    if (ago := _AGO.fullmatch(text)) is not None:
        return now - int(ago[1]) * _UNITS_S[ago[2]]
    if (hour := _HOUR.fullmatch(text)) is not None:
        return _last_time(int(hour[1]), int(hour[2]), int(hour[3] or 0), now)
    try:
        return datetime.fromisoformat(text).timestamp()  # without a zone it is the machine's
    except (ValueError, OverflowError, OSError):
        return None


def _last_time(hour: int, minute: int, second: int, now: float) -> float | None:
    today = datetime.fromtimestamp(now)  # noqa: DTZ006 the wall's own hours
    try:
        then = today.replace(hour=hour, minute=minute, second=second, microsecond=0)
    except ValueError:
        return None
    return (then if then.timestamp() <= now else then - timedelta(days=1)).timestamp()
