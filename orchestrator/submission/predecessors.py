"""The jobs that a job file names in `lq.after` and `lq.after_any`, and whether a job can wait for them."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from jobs.model.errors import InvalidInput, NoSuchJob, NotAllowed
from jobs.model.job import Job
from jobs.model.states import ENDED, Status
from orchestrator.core.app import App

if TYPE_CHECKING:
    from configs.load import LoadedJob
    from jobs.model.spec import JobSpec


def predecessors(app: App, spec: JobSpec) -> list[tuple[int, bool]]:
    """Return the ids of the jobs that must end first, each with whether any end of it will do."""
    any_end = {job_id: True for wanted in spec.lq.after_any for job_id in _ids(app, wanted)}
    return sorted((any_end | {job_id: False for wanted in spec.lq.after for job_id in _ids(app, wanted)}).items())


def _ids(app: App, wanted: int | str) -> list[int]:
    """Return the ids of the job, or of the group's jobs, with that id or name."""
    if not app.home.store.exists():
        return []
    if isinstance(wanted, str):
        return app.store.jobs.ids_called(wanted)
    try:
        return [app.store.jobs.get(wanted).id]
    except NoSuchJob:
        return []


def require_predecessors(app: App, loaded: LoadedJob, before: Collection[str]) -> None:
    """Refuse a job that comes after a job that does not exist, or can no longer succeed.

    `before` has the names of the jobs that are queued together with it, before it.
    """
    lq, source = loaded.spec.lq, loaded.source
    wanted_by = [("after", wanted) for wanted in lq.after] + [("after_any", wanted) for wanted in lq.after_any]
    for key, wanted in wanted_by:
        ids = _ids(app, wanted)
        if wanted not in before and not ids:
            what = (
                f"there is no job {wanted}" if isinstance(wanted, int) else f"no job and no group is called '{wanted}'"
            )
            raise InvalidInput(f"{source}: lq.{key}: {what}; see: lq status --all")
        lost = [job for job in map(app.store.jobs.get, ids) if job.status in ENDED - {Status.SUCCEEDED}]
        if wanted not in before and key == "after" and lost:
            raise NotAllowed(
                f"{source}: lq.after: job {lost[0].id} is {lost[0].status}, so this one would never run; "
                f"first: lq retry {lost[0].id}, or write lq.after_any"
            )


def require_no_circle(app: App, job: Job, loaded: LoadedJob) -> None:
    """Refuse an edited job that would come after itself."""
    on: dict[int, set[int]] = {}
    for dependency in app.store.dependencies.find():
        on.setdefault(dependency.job_id, set()).add(dependency.on)
    reached: set[int] = set()
    ahead = {job_id for job_id, _ in predecessors(app, loaded.spec)}
    while ahead:
        reached |= ahead
        ahead = {predecessor for job_id in ahead for predecessor in on.get(job_id, ())} - reached
    if job.id in reached:
        raise InvalidInput(f"{loaded.source}: lq.after: job {job.id} would come after itself; name other jobs")
