"""How the verbs print: one console, JSON with a schema number, and the words for numbers and times."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Any

import click

from jobs.model.events import finite

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.core.app import App

SCHEMA = 1

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
            jobs = [app.store.jobs.get(job_id) for job_id in self._done]
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
