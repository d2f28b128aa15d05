"""How the verbs print: one console, JSON with a schema number, and the words for numbers and times."""

from __future__ import annotations

import functools
import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from jobs.events import finite

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.app import App

SCHEMA = 1
NONE = "–"

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
quiet_option = click.option("--quiet", "-q", "quiet", is_flag=True, help="Print only the ids of the jobs, one a line.")


class Voice:
    """What a verb that changes jobs says: what changed in words, or only whose ids, or JSON."""

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        """Say whether words are wanted."""
        self._quiet, self._as_json = quiet, as_json
        self._done: list[int] = []

    def say(self, text: str | None) -> None:
        """Tell a person; nothing where there is nothing to tell."""
        if text is not None and not self._quiet and not self._as_json:
            click.echo(text)

    def done(self, job_id: int) -> None:
        """Tell a script that a job is as it was asked to be, or on its way there."""
        self._done.append(job_id)
        if self._quiet:
            click.echo(job_id)

    def end(self, app: App, **more: Any) -> None:
        """Print the JSON, where that is wanted: the jobs as they are now, and what else there is to tell."""
        if self._as_json:
            jobs = [app.store.job(job_id) for job_id in self._done]
            told = [{"id": job.id, "name": job.name, "status": job.status.value} for job in jobs]
            print_json({"jobs": told} | more)


def takes_voice(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a verb that changes jobs be quiet, or speak to machines; it is called with `voice`."""

    @functools.wraps(command)
    def with_voice(*, quiet: bool, as_json: bool, **others: Any) -> Any:
        if quiet and as_json:
            raise click.UsageError("--quiet prints ids and --json JSON; give one of them")
        return command(voice=Voice(quiet=quiet, as_json=as_json), **others)

    return quiet_option(json_option(with_voice))


def console(*, stderr: bool = False, piped: int = 200) -> Console:
    """Return the console; without a terminal it neither colours nor wraps, and is `piped` wide unless COLUMNS says."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else piped
    return Console(stderr=stderr, highlight=False, soft_wrap=not stream.isatty(), width=width)


def print_json(content: Mapping[str, Any]) -> None:
    """Print one JSON object with the schema's number."""
    click.echo(json.dumps({"schema": SCHEMA} | finite(dict(content)), ensure_ascii=False, allow_nan=False))


def to_people(*, as_json: bool) -> AbstractContextManager[object]:
    """Have what a block prints go to stderr, where stdout is for machines."""
    return redirect_stdout(sys.stderr) if as_json else nullcontext()


def note(text: str) -> None:
    """Tell the person something that is not the answer; goes to stderr."""
    click.echo(f"note: {text}", err=True)


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


def ahead(moment: float) -> str:
    """Return a local time to come as a person says it: at 22:00, tomorrow at 07:30, on Fri 27 Nov at 22:00."""
    then, today = datetime.fromtimestamp(moment).astimezone(), datetime.now().astimezone()
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
