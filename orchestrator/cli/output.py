"""How verbs print: JSON with a schema number, changes of jobs, the console and notes."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from typing import TYPE_CHECKING, Any

import click

from jobs.model.events import finite

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from jobs.model.job import QueueState
    from orchestrator.core.app import App

SCHEMA = 1

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet_option = click.option("--quiet", "-q", "quiet", is_flag=True, help="Print only the job ids, one per line.")


class ChangeOutput:
    """What a verb that changes jobs prints: text, or only the ids of the jobs, or JSON."""

    def __init__(
        self, *, quiet: bool = False, as_json: bool = False, echo: Callable[[str], object] = click.echo
    ) -> None:
        """Print text by default; `echo` receives each line."""
        self._quiet, self._as_json, self._echo = quiet, as_json, echo
        self._changed: list[int] = []

    def line(self, text: str | None) -> None:
        """Print a line of text unless --quiet or --json is given."""
        if text is not None and not self._quiet and not self._as_json:
            self._echo(text)

    def changed(self, job_id: int) -> None:
        """Add a job to the ids of --quiet and to the JSON."""
        self._changed.append(job_id)
        if self._quiet:
            click.echo(job_id)

    def finish(self, app: App, queue: QueueState | None = None) -> None:
        """Print the changed jobs as JSON if --json is given, for some verbs with the state of the queue."""
        if not self._as_json:
            return
        from orchestrator.results.build import from_attributes
        from orchestrator.results.jobs import ChangedJob, ChangeResult, PauseResult, QueueSummary

        jobs = [from_attributes(ChangedJob, app.store.jobs.get(job_id)) for job_id in self._changed]
        if queue is None:
            print_json(ChangeResult(jobs=jobs))
        else:
            summary = QueueSummary(paused=queue.paused_at is not None, because=queue.because)
            print_json(PauseResult(jobs=jobs, queue=summary))


def change_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --quiet and --json to a verb that changes jobs. The verb gets a `ChangeOutput` as `out`."""

    @functools.wraps(command)
    def with_output(*, quiet: bool, as_json: bool, **others: Any) -> Any:
        if quiet and as_json:
            raise click.UsageError("--quiet and --json cannot be used together")
        return command(out=ChangeOutput(quiet=quiet, as_json=as_json), **others)

    return quiet_option(json_option(with_output))


def print_json(result: DataclassInstance | Sequence[DataclassInstance], *, under: str | None = None) -> None:
    """Print a result as one JSON object with the schema number; a list is the field `under` of that object."""
    fields = [dataclasses.asdict(one) for one in result] if isinstance(result, Sequence) else dataclasses.asdict(result)
    content = {"schema": SCHEMA} | finite(fields if under is None else {under: fields})
    click.echo(json.dumps(content, ensure_ascii=False, allow_nan=False, default=str))


def text_to_stderr(*, as_json: bool) -> AbstractContextManager[object]:
    """Redirect stdout to stderr within a block if stdout is for JSON."""
    return redirect_stdout(sys.stderr) if as_json else nullcontext()


def note(text: str) -> None:
    """Print a note to stderr."""
    click.echo(f"note: {text}", err=True)
