"""SQL that several classes of the store share: read a job, change one, the order of the queue."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, select, update

from jobs.model.errors import NoSuchJob, NotAllowed
from jobs.model.job import Job
from jobs.model.states import LIVE, Status
from orchestrator.store.rows import to_job
from orchestrator.store.schema import attempts, jobs

if TYPE_CHECKING:
    pass


QUEUED: dict[str, Any] = {
    "status": Status.QUEUED,
    "reason": None,
    "detail": None,
    "not_before": None,
    "ended_at": None,
    "stop_request": None,
    "resumes": None,
}


def select_jobs() -> Select[*tuple[Any, ...]]:
    """Return the query for everything a Job says."""
    living = and_(attempts.c.job_id == jobs.c.id, attempts.c.ended_at.is_(None))
    child = (attempts.c.child_pid, attempts.c.child_create_time, attempts.c.child_boot_id)
    own = [column for column in jobs.columns if column is not jobs.c.spec_json]  # long, and wanted by few
    return select(*own, *child).select_from(jobs.outerjoin(attempts, living))


def read_job(db: Connection, job_id: int) -> Job:
    """Return a job as this transaction sees it.

    Raises:
        NoSuchJob: no job has this id.
    """
    row = db.execute(select_jobs().where(jobs.c.id == job_id)).mappings().first()
    if row is None:
        raise no_such_job(job_id)
    return to_job(row)


def change(db: Connection, job_id: int, values: dict[str, Any]) -> None:
    """Set columns of one job."""
    db.execute(update(jobs).where(jobs.c.id == job_id).values(**values))


def in_line() -> Sequence[ColumnElement[Any]]:
    """Return the order in which jobs get their turn: highest priority first, then as submitted or moved."""
    return jobs.c.priority.desc(), func.coalesce(jobs.c.place, jobs.c.id), jobs.c.id


def queue_due(db: Connection, now: float) -> None:
    """Queue the waiting jobs whose time has come."""
    due = and_(jobs.c.status == Status.WAITING, func.coalesce(jobs.c.not_before, 0.0) <= now)
    db.execute(update(jobs).where(due).values(**QUEUED))


def requeue(db: Connection, job_id: int) -> None:
    """Queue a job, with nothing left of why it was not."""
    change(db, job_id, QUEUED)


def require_free_paths(db: Connection, adapter_paths: Sequence[str], *, besides: int | None = None) -> None:
    """Raise NotAllowed where a live job publishes to one of these folders, by whatever name it calls it.

    Args:
        db: the transaction.
        adapter_paths: the folders.
        besides: the job they are for, where it is live already.
    """
    if not adapter_paths:
        return
    wanted = {os.path.realpath(path): path for path in adapter_paths}
    live = select(jobs.c.id, jobs.c.name, jobs.c.status, jobs.c.spec_json).where(jobs.c.status.in_(LIVE))
    for row in db.execute(live):
        other = json.loads(row.spec_json).get("adapter_path")
        if other is not None and row.id != besides and (found := wanted.get(os.path.realpath(other))) is not None:
            raise NotAllowed(
                f"adapter_path {found} is already taken by job {row.id} ({row.name}, {row.status}); name another one"
            )


def no_such_job(job_id: int) -> NoSuchJob:
    """Return the error for an id that no job has."""
    return NoSuchJob(f"no job {job_id}; see: lq status --all")
