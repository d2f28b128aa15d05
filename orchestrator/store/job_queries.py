"""SQL about jobs that several classes share. Each function works within the caller's transaction."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, and_, func, select, update

from jobs.model.errors import NoSuchJob, NotAllowed
from jobs.model.job import Job
from jobs.model.outcomes import Reason
from jobs.model.states import LIVE, Status
from orchestrator.store.rows import to_job
from orchestrator.store.schema import attempts, jobs

QUEUED: dict[str, Any] = {
    "status": Status.QUEUED,
    "reason": None,
    "detail": None,
    "not_before": None,
    "ended_at": None,
    "stop_request": None,
    "resumes": None,
}
"""The columns of a job that enters the queue."""


def held(because: str) -> dict[str, Any]:
    """Return the columns of a job that the user holds."""
    return {"status": Status.HELD, "reason": Reason.STOPPED_BY_USER, "detail": because, "not_before": None}


def select_jobs(*conditions: ColumnElement[bool]) -> Select[*tuple[Any, ...]]:
    """Return the query for every field of a Job."""
    running = and_(attempts.c.job_id == jobs.c.id, attempts.c.ended_at.is_(None))
    child = (attempts.c.child_pid, attempts.c.child_create_time, attempts.c.child_boot_id)
    own = [column for column in jobs.columns if column is not jobs.c.spec_json]  # long, and few callers need it
    return select(*own, *child).select_from(jobs.outerjoin(attempts, running)).where(*conditions)


def read_job(db: Connection, job_id: int) -> Job:
    """Return a job."""
    row = db.execute(select_jobs(jobs.c.id == job_id)).mappings().first()
    if row is None:
        raise no_such_job(job_id)
    return to_job(row)


def read_column(db: Connection, job_id: int, column: Column[Any]) -> Any:
    """Return a column of a job that is never null."""
    value = db.execute(select(column).where(jobs.c.id == job_id)).scalar()
    if value is None:
        raise no_such_job(job_id)
    return value


def change(db: Connection, job_id: int, values: dict[str, Any]) -> None:
    """Set columns of one job."""
    db.execute(update(jobs).where(jobs.c.id == job_id).values(**values))


def queue_order() -> Sequence[ColumnElement[Any]]:
    """Return the order in which jobs start: highest priority first, then as submitted or moved."""
    return jobs.c.priority.desc(), func.coalesce(jobs.c.queue_position, jobs.c.id), jobs.c.id


def queue_due(db: Connection, now: float) -> None:
    """Queue the waiting jobs whose `not_before` has passed."""
    due = and_(jobs.c.status == Status.WAITING, func.coalesce(jobs.c.not_before, 0.0) <= now)
    db.execute(update(jobs).where(due).values(**QUEUED))


def require_free_paths(db: Connection, adapter_paths: Sequence[str], *, besides: int | None = None) -> None:
    """Raise NotAllowed if a live job but `besides` publishes to one of these folders, also by another name."""
    if not adapter_paths:
        return
    by_real_path = {os.path.realpath(path): path for path in adapter_paths}
    live = select(jobs.c.id, jobs.c.name, jobs.c.status, jobs.c.spec_json).where(jobs.c.status.in_(LIVE))
    for row in db.execute(live):
        other = json.loads(row.spec_json).get("adapter_path")
        if other is None or row.id == besides:
            continue
        if (path := by_real_path.get(os.path.realpath(other))) is not None:
            raise NotAllowed(
                f"adapter_path {path} is already taken by job {row.id} ({row.name}, {row.status}); name another one"
            )


def no_such_job(job_id: int) -> NoSuchJob:
    """Return the error for an id that no job has."""
    return NoSuchJob(f"no job {job_id}; see: lq status --all")
