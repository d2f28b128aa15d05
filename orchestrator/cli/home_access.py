"""How verbs open the home, look jobs up and wake the worker."""

from __future__ import annotations

import dataclasses
import difflib
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.model.errors import HomeUnusable, InvalidInput, NoSuchJob
from jobs.model.job import Job
from jobs.model.states import ENDED, Status
from orchestrator.cli import output
from orchestrator.core.app import App
from orchestrator.formatting import text as fmt
from orchestrator.worker import control

MAX_ID = 2**63 - 1
"""The largest integer of SQLite."""


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


@contextmanager
def open_app() -> Iterator[App]:
    """Open the app of this user, and close it after the block."""
    with App.of_this_user() as app:
        require_home(app.home.path)
        yield app


def require_home(home: Path) -> None:
    """Raise HomeUnusable if the home, or the nearest existing path above it, is not a readable folder."""
    try:
        present = next(path for path in (home, *home.parents) if path.exists())
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        raise HomeUnusable(f"{home}: {why}; set LQ_HOME to another folder") from error
    if not present.is_dir():
        raise HomeUnusable(f"{home}: {present} is not a folder; set LQ_HOME to another folder")


def has_store(app: App) -> bool:
    """Return whether the store exists. Verbs that only read do not create it."""
    return app.home.store.exists()


def list_jobs(app: App, *, every: bool = False) -> list[Job]:
    """Return the live jobs and the last jobs that ended, or every job."""
    return app.store.jobs.overview(all_jobs=every) if has_store(app) else []


def find_job(app: App, ref: JobRef) -> Job:
    """Return the job with an id or a name. A number is an id first.

    Raises:
        NoSuchJob: no job has this id or name.
        InvalidInput: several jobs have this name, and not exactly one of them is live.
    """
    if not has_store(app):
        raise NoSuchJob(f"no job {ref.text}: {app.home.path} has no jobs yet; see: lq submit --help")
    matches = app.store.jobs.between(ref.first, ref.first) if ref.first is not None and ref.first <= MAX_ID else []
    matches = matches or app.store.jobs.named(ref.text)
    if not matches:
        no_id = f"no job {ref.text}; see: lq status --all"
        raise NoSuchJob(no_id if ref.first is not None else _no_such_name(app, ref.text))
    live = [job for job in matches if job.status not in ENDED]
    if len(matches) > 1 and len(live) != 1:
        raise InvalidInput(f"jobs {fmt.listed(job.id for job in matches)} have the name '{ref.text}'; give an id")
    return (live if len(matches) > 1 else matches)[0]


def present_job(app: App) -> Job:
    """Return the job that started last among those that run, or else among all that have started.

    Raises:
        NoSuchJob: no job has started yet.
    """
    jobs = [job for job in list_jobs(app) if job.started_at is not None]
    if not jobs:
        raise NoSuchJob(f"no job has started yet in {app.home.path}; see: lq status")
    job = max(jobs, key=lambda job: (job.status is Status.RUNNING, job.started_at or 0.0))
    output.note(f"job {job.id} ({job.name}) {job.status}")
    return job


def jobs_in_range(app: App, ref: JobRef) -> list[Job]:
    """Return the jobs of a range. Ids without a job are skipped; raises NoSuchJob if all of them are."""
    first, last = ref.first or 1, min(ref.last or 1, MAX_ID)
    jobs = app.store.jobs.between(first, last) if has_store(app) and first <= last else []
    jobs = jobs or (app.store.jobs.named(ref.text) if has_store(app) else [])
    if not jobs:
        raise NoSuchJob(f"no job has an id from {ref.first} to {ref.last}; see: lq status --all")
    return jobs


def _no_such_name(app: App, name: str) -> str:
    if name in app.store.groups.names():
        return f"no job has the name '{name}', but a group has; select its jobs with: --group {shlex.quote(name)}"
    near = difflib.get_close_matches(name, app.store.jobs.names(), n=1, cutoff=0.5)
    return f"no job has the name '{name}'; " + (f"did you mean '{near[0]}'?" if near else "see: lq status --all")


def jobs_of_group(app: App, group: str) -> list[Job]:
    """Return the jobs of a group by id; raises NoSuchJob if it does not exist."""
    if has_store(app) and (jobs := app.store.groups.jobs(group)):
        return jobs
    groups = app.store.groups.names() if has_store(app) else []
    hint = f"the newest group is '{groups[0]}'" if groups else "a matrix in a job file creates a group"
    if near := difflib.get_close_matches(group, groups, n=1, cutoff=0.5):
        hint = f"did you mean '{near[0]}'?"
    raise NoSuchJob(f"no group '{group}'; {hint}")


def require_wakeup(app: App) -> None:
    """Open what `wake_worker` needs, so that an error is raised before anything is changed."""
    app.settings()
    _ = app.store, app.wakeup  # opened on first access


def wake_worker(app: App) -> str | None:
    """Wake the worker, or start one if none runs and the settings allow it. Return a line for the user."""
    app.wakeup.wake()
    if control.running(app.home) is not None:
        return None
    if not app.settings().autostart:
        return "no worker runs (autostart is off in settings.yaml); start one: lq worker start"
    from orchestrator.service.install import start_worker

    return f"worker started (pid {start_worker(app.home)})"
