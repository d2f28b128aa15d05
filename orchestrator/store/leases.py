"""Leases: which worker runs a job. One guarded UPDATE claims it, a heartbeat keeps it, a Decision ends the lease."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Connection, and_, select, update

from jobs.model.errors import NotAllowed
from jobs.model.job import Incident, Job, NewMessage, ProcessIdentity
from jobs.model.outcomes import Reason
from jobs.model.states import ENDED, Status, require_legal
from orchestrator.store.database import Records
from orchestrator.store.incidents import insert_incidents
from orchestrator.store.job_queries import change, queue_due, queue_order, read_job
from orchestrator.store.jobs import AT_WORKER_START
from orchestrator.store.metrics import supersede_after
from orchestrator.store.outbox import insert_messages
from orchestrator.store.rows import from_identity
from orchestrator.store.run_plans import append_stage
from orchestrator.store.schema import attempts, jobs, queue

if TYPE_CHECKING:
    from jobs.policies.decision import Decision


class Leases(Records):
    """Leases of running jobs."""

    def claim(self, owner: ProcessIdentity, now: float, *, only: int | None = None) -> Job | None:
        """Take the first queued job, or `only` this one. A waiting job whose time has come counts as queued.

        Returns:
            The job, now running and leased to `owner`; None if no job is queued or the queue is paused. No other
            claim returns the same job.
        """
        with self._database.writing() as db:
            if db.execute(select(queue.c.paused_at)).scalar() is not None:
                return None
            queue_due(db, now)
            queued = jobs.c.status == Status.QUEUED
            first = select(jobs.c.id).where(queued).order_by(*queue_order()).limit(1)
            if only is not None:
                first = first.where(jobs.c.id == only)
            claimed = db.execute(
                update(jobs)
                .where(queued, jobs.c.id == first.scalar_subquery())
                .values(status=Status.RUNNING, heartbeat_at=now, **from_identity(owner, "owner"))
                .returning(jobs.c.id, jobs.c.started_at)
            ).first()
            if claimed is None:
                return None
            if claimed.started_at is None:
                change(db, claimed.id, {"started_at": now})
            return read_job(db, claimed.id)

    def take_over(self, job_id: int, *, old: ProcessIdentity | None, new: ProcessIdentity, now: float) -> bool:
        """Move the lease of a running job to another worker; return False if `old` does not have it."""
        with self._database.writing() as db:
            moved = db.execute(
                update(jobs)
                .where(jobs.c.id == job_id, jobs.c.status == Status.RUNNING, _owned_by(old))
                .values(heartbeat_at=now, **from_identity(new, "owner"))
            )
            return moved.rowcount == 1

    def heartbeat(self, job_id: int, owner: ProcessIdentity, now: float) -> None:
        """Record that `owner` still runs the job; do nothing if it does not have the lease."""
        with self._database.writing() as db:
            db.execute(update(jobs).where(jobs.c.id == job_id, _owned_by(owner)).values(heartbeat_at=now))

    def settle(
        self,
        job_id: int,
        decision: Decision,
        *,
        owner: ProcessIdentity,
        now: float,
        incidents: Sequence[Incident] = (),
        messages: Sequence[NewMessage] = (),
    ) -> Job:
        """Carry out a Decision about a running job: write its new state, incidents and messages, all or nothing.

        A stop request that is newer than the decision takes effect: a cancelled job is not queued again.
        """
        with self._database.writing() as db:
            job = require_lease(db, job_id, owner)
            decision = _with_newer_stop_request(decision, job.stop_request)
            require_legal(job_id, job.status, decision.status)
            by_worker = decision.status is Status.PAUSED and job.stop_request == "worker_stop"
            values = {
                "status": decision.status,
                "reason": decision.reason,
                "detail": decision.detail,
                "not_before": decision.not_before,
                "ended_at": now if decision.status in ENDED else None,
                "resumes": AT_WORKER_START if by_worker else None,
                "stop_request": None,
                "heartbeat_at": None,
            }
            change(db, job_id, values | from_identity(None, "owner"))
            db.execute(update(attempts).where(attempts.c.job_id == job_id).values(settled=True))
            if decision.stage is not None:
                append_stage(db, job_id, decision.stage, now)
            if decision.back_to is not None:
                supersede_after(db, job_id, decision.back_to)
            insert_incidents(db, incidents)
            insert_messages(db, messages, now)
            return read_job(db, job_id)


def require_lease(db: Connection, job_id: int, owner: ProcessIdentity) -> Job:
    """Return a job that `owner` runs."""
    job = read_job(db, job_id)
    if job.status is not Status.RUNNING or job.owner != owner:
        raise NotAllowed(f"job {job_id} is {job.status}, and this worker does not run it; see: lq show {job_id}")
    return job


def _owned_by(owner: ProcessIdentity | None) -> ColumnElement[bool]:
    if owner is None:
        return jobs.c.owner_pid.is_(None)
    return and_(
        jobs.c.owner_pid == owner.pid,
        jobs.c.owner_create_time == owner.create_time,
        jobs.c.owner_boot_id == owner.boot_id,
    )


def _with_newer_stop_request(decision: Decision, stop_request: str | None) -> Decision:
    # a Decision that answers a stop request leaves the job neither waiting nor, after a cancel, paused
    if stop_request == "cancel" and decision.status in (Status.WAITING, Status.PAUSED):
        status, detail = Status.CANCELLED, "cancelled by the user"
    elif stop_request is not None and decision.status is Status.WAITING:
        status, detail = Status.PAUSED, f"paused by the user; before: {decision.detail}"
        if stop_request == "worker_stop":
            detail = f"paused with the worker; resumes when a worker starts; before: {decision.detail}"
    else:
        return decision
    return dataclasses.replace(decision, status=status, reason=Reason.STOPPED_BY_USER, detail=detail, not_before=None)
