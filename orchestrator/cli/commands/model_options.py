"""Options and steps that `lq chat`, `lq generate`, `lq test` and `lq fuse` share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from jobs.model.job import Job
from jobs.model.states import Status
from orchestrator.artifacts import weights
from orchestrator.cli import output
from orchestrator.scheduling import device_lock
from orchestrator.scheduling.device_lock import Beside

if TYPE_CHECKING:
    from orchestrator.artifacts.weights import TunedModel
    from orchestrator.core.app import App

mlx_options = click.argument("options", metavar="[-- OPTION...]", nargs=-1, type=click.UNPROCESSED)
base_option = click.option("--base", is_flag=True, help="Use the model without the adapter.")


def device_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what to do while a job trains."""
    anyway = click.option("--anyway", is_flag=True, help="Run while a job trains; both become slower.")
    queue = click.option("--queue", is_flag=True, help="Wait until no job trains, and start before the next one.")
    return anyway(queue(command))


@contextmanager
def device(app: App, verb: str, job: Job, *, anyway: bool, queue: bool) -> Iterator[None]:
    """Use the device within a block; no job starts meanwhile."""
    if anyway and queue:
        raise click.UsageError("--anyway and --queue cannot be used together")
    beside = Beside.ANYWAY if anyway else Beside.WAIT if queue else Beside.REFUSE
    with device_lock.used(app, verb, job.id, beside=beside, tell=output.note):
        yield


def tuned_model(app: App, job: Job, *, base: bool) -> TunedModel:
    """Find the model and the adapter. Print a note if the job did not succeed."""
    tuned = weights.tuned(app, job, base=base)
    if job.status is not Status.SUCCEEDED and tuned.adapter is not None:
        output.note(f"job {job.id} is {job.status}; using published weights: {tuned.why or 'unknown'}")
    return tuned
