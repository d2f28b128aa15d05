"""Click parameter types: a job by id or name, a range of ids, a time in the past, seconds.

A parameter type reads the text; orchestrator/cli/home_access.py and args.py look the jobs up.
"""

from __future__ import annotations

import dataclasses
import math
import re
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_RANGE = re.compile(r"(\d{1,30})-(\d{1,30})")
_UNITS_S = {"s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 24 * 3600.0, "w": 7 * 24 * 3600.0}
_AGO = re.compile(rf"(\d{{1,6}}) ?({'|'.join(sorted(_UNITS_S, key=len, reverse=True))})")
_HOUR = re.compile(r"(\d{1,2}):(\d\d)(?::(\d\d))?")
TIME_FORMATS = "10min, 2h, 22:00 or 2026-01-31T22:00"


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobRef:
    """A reference to one job or to a range of jobs, as typed."""

    text: str
    first: int | None  # the lowest id; None if the text can only be a name
    last: int | None  # the highest id

    @property
    def is_range(self) -> bool:
        """Whether the reference is a range of ids."""
        return self.first != self.last

    def __str__(self) -> str:
        """Return the text as typed."""
        return self.text


class OneJob(click.ParamType[JobRef]):
    """A job's id or name."""

    name = "job id or name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> JobRef:
        """Parse an id or a name, without looking the job up."""
        if isinstance(value, JobRef):
            return value
        text = str(value)
        if not re.fullmatch(r"\d+", text):
            if not text.strip():
                self.fail("empty job name; give an id or a name.", param, ctx)
            return JobRef(text=text, first=None, last=None)
        number = int(text)
        if number < 1:
            self.fail(f"{text} is not a job id: ids begin at 1.", param, ctx)
        return JobRef(text=text, first=number, last=number)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        """Return the ids that the verb accepts."""
        from orchestrator.cli import shell_completion

        return shell_completion.job_ids(ctx, incomplete)


class SomeJobs(OneJob):
    """An id, a name, or a range of ids such as `3-7`, both ends included."""

    name = "job id, range or name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> JobRef:
        """Parse an id, a range or a name, without looking the jobs up."""
        id_range = _RANGE.fullmatch(value) if isinstance(value, str) else None
        if id_range is None:
            return super().convert(value, param, ctx)
        first, last = int(id_range[1]), int(id_range[2])
        if first > last:
            self.fail(f"{value} runs backwards; write {last}-{first}.", param, ctx)
        if first < 1:
            self.fail(f"{value}: ids begin at 1; write 1-{last}.", param, ctx)
        return JobRef(text=value, first=first, last=last)


class Since(click.ParamType[float]):
    """A moment in the past, in unix seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse one of TIME_FORMATS."""
        moment = parse_time(str(value).strip(), time.time())
        if moment is None:
            self.fail(f"{value!r} is not a time; write {TIME_FORMATS}", param, ctx)
        return moment


class Seconds(click.FloatRange):
    """A number of seconds."""

    name = "number of seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse a number, and refuse nan, which click accepts in any range."""
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a valid {self.name}.", param, ctx)
        return seconds


def parse_time(text: str, now: float) -> float | None:
    """Return a moment in unix seconds, or None if the text is not a time.

    Args:
        text: a duration before now (10min), an hour (22:00: the last time it was 22:00), or an ISO date with or
            without a time. Without a zone it is local time.
        now: unix seconds.
    """
    if (ago := _AGO.fullmatch(text)) is not None:
        return now - int(ago[1]) * _UNITS_S[ago[2]]
    if (hour := _HOUR.fullmatch(text)) is not None:
        return _last_time(int(hour[1]), int(hour[2]), int(hour[3] or 0), now)
    try:
        return datetime.fromisoformat(text).timestamp()  # local time if it names no zone
    except (ValueError, OverflowError, OSError):
        return None


def _last_time(hour: int, minute: int, second: int, now: float) -> float | None:
    today = datetime.fromtimestamp(now)  # noqa: DTZ006 local time on purpose
    try:
        then = today.replace(hour=hour, minute=minute, second=second, microsecond=0)
    except ValueError:
        return None
    return (then if then.timestamp() <= now else then - timedelta(days=1)).timestamp()


ONE_JOB = OneJob()
SOME_JOBS = SomeJobs()
SECONDS = Seconds(min=0)
