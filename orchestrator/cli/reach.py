"""How verbs reach the jobs and the worker."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobs.errors import HomeUnusable, NoSuchJob
from jobs.job import Job
from orchestrator import duty
from orchestrator.app import App

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class _JobId(click.IntRange):
    name = "job id"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        """Offer the ids that the verb is for."""
        from orchestrator.cli import completion

        return completion.job_ids(ctx, incomplete)


class _Seconds(click.FloatRange):
    name = "number of seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a number; nan passes every range."""
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a valid {self.name}.", param, ctx)
        return seconds


JOB_ID = _JobId(min=1)
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
        require_place(app.home.path)
        yield app


def require_place(home: Path) -> None:
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
    return app.store.jobs(all_jobs=every) if has_store(app) else []


def one_job(app: App, job_id: int) -> Job:
    """Return a job.

    Raises:
        NoSuchJob: no job has this id.
    """
    if not has_store(app):
        raise NoSuchJob(f"no job {job_id}: nothing was submitted to {app.home.path} yet; see: lq submit --help")
    if job_id > LARGEST_ID:
        raise NoSuchJob(f"no job {job_id}; see: lq status --all")
    return app.store.job(job_id)


def named_jobs(app: App, job_ids: Sequence[int]) -> list[Job]:
    """Return jobs, each once; whoever changes several looks at all of them first.

    Raises:
        NoSuchJob: no job has one of these ids.
    """
    return [one_job(app, job_id) for job_id in dict.fromkeys(job_ids)]


def require_bell(app: App) -> None:
    """Open what `wake_worker` needs, so that what is wrong with it is told before anything is changed.

    Raises:
        ConfigInvalid: settings.yaml cannot be followed.
        StoreUnusable: the store or the doorbell is damaged.
        HomeUnusable: the home cannot be written.
    """
    app.settings()
    _ = app.store, app.doorbell  # opened when first named


def wake_worker(app: App) -> str | None:
    """Ring, and start a worker where none runs and settings allow it; return what the person should know."""
    app.doorbell.ring()
    if duty.running(app.home) is not None:
        return None
    if not app.settings().autostart:
        return "no worker runs (autostart is off in settings.yaml); start one: lq worker --detach"
    from orchestrator.service import start_worker

    return f"worker started (pid {start_worker(app.home)})"


job_id_argument = click.argument("job_id", metavar="ID", type=JOB_ID)


def offer_groups(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Have a shell offer the names of groups."""
    from orchestrator.cli import completion

    return completion.groups(ctx, param, incomplete)


_group_option = click.option(
    "--group", "group", metavar="NAME", shell_complete=offer_groups, help="Every job of this group."
)
_optional_ids = click.argument("job_ids", metavar="[ID...]", type=JOB_ID, nargs=-1)


def jobs_or_group(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a verb take ids, `--group NAME`, or both."""
    return _optional_ids(_group_option(command))


def chosen_jobs(app: App, job_ids: Sequence[int], group: str | None, *, or_else: str | None = None) -> list[Job]:
    """Return the jobs named by id, and those of a group, each once.

    Args:
        app: where they are.
        job_ids: by id.
        group: by group.
        or_else: an option that a verb takes in the place of both, where it was not given.

    Raises:
        NoSuchJob: no job has one of these ids, or no group this name.
    """
    if not job_ids and group is None and or_else is not None:
        raise click.UsageError(f"name a job, or {or_else}")
    found = named_jobs(app, job_ids)
    known = {job.id for job in found}
    return [*found, *(job for job in (jobs_of_group(app, group) if group is not None else ()) if job.id not in known)]


def jobs_of_group(app: App, group: str) -> list[Job]:
    """Return the jobs of a group by id.

    Raises:
        NoSuchJob: there is no such group; the nearest one is named.
    """
    found = app.store.jobs_of_group(group) if has_store(app) else []
    if not found:
        groups = app.store.groups() if has_store(app) else []
        near = difflib.get_close_matches(group, groups, n=1, cutoff=0.5)
        if near:
            hint = f"did you mean '{near[0]}'?"
        elif groups:
            hint = f"the newest is '{groups[0]}'"
        else:
            hint = "there is none yet; a matrix in a job file makes one"
        raise NoSuchJob(f"no group '{group}'; {hint}")
    return found


job_ids_argument = click.argument("job_ids", metavar="ID...", type=JOB_ID, nargs=-1, required=True)
