"""How verbs reach the jobs and the worker."""

from __future__ import annotations

import difflib
import math
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.model.errors import HomeUnusable, InvalidInput, NoSuchJob
from jobs.model.job import Job
from jobs.model.states import ENDED
from orchestrator.cli.param_types import ONE_JOB, JobRef
from orchestrator.core.app import App
from orchestrator.formatting import text as fmt
from orchestrator.worker import control

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class _Seconds(click.FloatRange):
    name = "number of seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a number; nan passes every range."""
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a valid {self.name}.", param, ctx)
        return seconds


LARGEST_ID = 2**63 - 1
"""SQLite has no larger whole numbers."""

SECONDS = _Seconds(min=0)


@contextmanager
def opened() -> Iterator[App]:
    """Give the app of this user, and close it.

    Raises:
        HomeUnusable: where the home should be is something else, or below it.
    """
    with App.of_this_user() as app:
        require_target(app.home.path)
        yield app


def require_target(home: Path) -> None:
    """Refuse a home that cannot be one, without making it.

    Raises:
        HomeUnusable: it, or what it should be made in, is no folder or cannot be looked into.
    """
    try:
        present = next(place for place in (home, *home.parents) if place.exists())
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise HomeUnusable(f"{home}: {why}; name another folder with LQ_HOME") from error
    if not present.is_dir():
        raise HomeUnusable(f"{home}: {present} is not a folder; name another one with LQ_HOME")


def has_store(app: App) -> bool:
    """Say whether there is anything to read; reading verbs make nothing."""
    return app.home.store.exists()


def all_jobs(app: App, *, every: bool = False) -> list[Job]:
    """Return the jobs to list; none where nothing was ever submitted."""
    return app.store.jobs.overview(all_jobs=every) if has_store(app) else []


def one_job(app: App, asked: int | JobRef) -> Job:
    """Return the job of an id or a name; what looks like a number is an id first.

    Args:
        app: where it is.
        asked: the id, or what was typed for it.

    Raises:
        NoSuchJob: no job has this id or name; the nearest name is suggested.
        InvalidInput: several jobs have this name, and not just one of them is live.
    """
    if not has_store(app):
        raise NoSuchJob(f"no job {asked}: nothing was submitted to {app.home.path} yet; see: lq submit --help")
    number, name = (asked, str(asked)) if isinstance(asked, int) else (asked.first, asked.text)
    found = app.store.jobs.between(number, number) if number is not None and number <= LARGEST_ID else []
    found = found or (app.store.jobs.named(name) if isinstance(asked, JobRef) else [])
    if not found:
        raise NoSuchJob(f"no job {asked}; see: lq status --all" if number is not None else _nobody(app, name))
    live = [job for job in found if job.status not in ENDED]
    (chosen,) = found if len(found) == 1 else live if len(live) == 1 else (None,)
    if chosen is None:
        raise InvalidInput(f"jobs {fmt.listed(job.id for job in found)} are called '{name}'; say which by its id")
    return chosen


def _nobody(app: App, name: str) -> str:
    """Say that no job has this name, and what may have been meant."""
    if name in app.store.groups.names():
        return f"no job is called '{name}', a group is; its jobs are named with: --group {shlex.quote(name)}"
    near = difflib.get_close_matches(name, app.store.jobs.names(), n=1, cutoff=0.5)
    return f"no job is called '{name}'; " + (f"did you mean '{near[0]}'?" if near else "see: lq status --all")


def require_bell(app: App) -> None:
    """Open what `wake_worker` needs, so that what is wrong with it is told before anything is changed.

    Raises:
        ConfigInvalid: settings.yaml cannot be followed.
        StoreUnusable: the store or the wake-up queue is damaged.
        HomeUnusable: the home cannot be written.
    """
    app.settings()
    _ = app.store, app.wakeup  # opened when first named


def wake_worker(app: App) -> str | None:
    """Ring, and start a worker where none runs and settings allow it; return what the person should know."""
    app.wakeup.wake()
    if control.running(app.home) is not None:
        return None
    if not app.settings().autostart:
        return "no worker runs (autostart is off in settings.yaml); start one: lq worker --detach"
    from orchestrator.service.install import start_worker

    return f"worker started (pid {start_worker(app.home)})"


job_id_argument = click.argument("job_id", metavar="ID", type=ONE_JOB)


def offer_groups(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Have a shell offer the names of groups."""
    from orchestrator.cli.commands import completion

    return completion.groups(ctx, param, incomplete)


def jobs_of_group(app: App, group: str) -> list[Job]:
    """Return the jobs of a group by id.

    Raises:
        NoSuchJob: there is no such group; the nearest one is named.
    """
    found = app.store.groups.jobs(group) if has_store(app) else []
    if not found:
        groups = app.store.groups.names() if has_store(app) else []
        near = difflib.get_close_matches(group, groups, n=1, cutoff=0.5)
        if near:
            hint = f"did you mean '{near[0]}'?"
        elif groups:
            hint = f"the newest is '{groups[0]}'"
        else:
            hint = "there is none yet; a matrix in a job file makes one"
        raise NoSuchJob(f"no group '{group}'; {hint}")
    return found
