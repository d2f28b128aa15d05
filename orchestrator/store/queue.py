"""The queue: the order in which jobs start, and whether jobs start at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import Connection, func, or_, select, update

from jobs.model.errors import NotAllowed
from jobs.model.job import Job, NewMessage, QueueState
from jobs.model.outcomes import Reason
from jobs.model.states import ENDED, LIVE, Status, require_legal
from orchestrator.store.database import Records
from orchestrator.store.job_queries import change, queue_due, queue_order, read_job, select_jobs
from orchestrator.store.outbox import insert_messages
from orchestrator.store.rows import to_job
from orchestrator.store.schema import dependencies, jobs, queue

if TYPE_CHECKING:
    from jobs.model.spec import JobSpec

IN_QUEUE = LIVE - {Status.RUNNING}
NOT_SUCCEEDED = ENDED - {Status.SUCCEEDED}


@dataclasses.dataclass(frozen=True, kw_only=True)
class WaitingJob:
    """A job that waits for its start, with its JobSpec as JSON."""

    job: Job
    spec_json: str

    @property
    def spec(self) -> JobSpec:
        """What the job asks for."""
        from jobs.model.spec import JobSpec  # pydantic is slow to import, and `lq status` needs no specs

        return JobSpec.model_validate_json(self.spec_json)


class JobQueue(Records):
    """The queue."""

    def waiting(self) -> list[WaitingJob]:
        """Return the queued and waiting jobs in the order in which they start."""
        query = select_jobs().add_columns(jobs.c.spec_json).order_by(*queue_order())
        rows = self._rows(query.where(jobs.c.status.in_((Status.QUEUED, Status.WAITING))))
        return [WaitingJob(job=to_job(row), spec_json=row["spec_json"]) for row in rows]

    def enqueue_due(self, now: float, announce: Callable[[Job], Sequence[NewMessage]]) -> list[Job]:
        """Queue the waiting jobs whose time has come; skip and return the queued jobs that can never start.

        `announce` returns the messages that a skipped job causes.
        """
        with self._database.writing() as db:
            queue_due(db, now)
            ids: list[int] = []
            while blocked := _blocked(db):  # a job that depends on a skipped job is skipped too
                for job_id, on, status in blocked:
                    _skip(db, job_id, on, status, now)
                ids += [job_id for job_id, _, _ in blocked]
            skipped = [read_job(db, job_id) for job_id in ids]
            for job in skipped:
                insert_messages(db, announce(job), now)
            return skipped

    def move(self, job_id: int, *, before: int | None = None, after: int | None = None, last: bool = False) -> Job:
        """Move a job in the queue: before another one, after it, after all others, or by default before all others.

        It takes the priority of its new neighbour.
        """
        with self._database.writing() as db:
            for named in (job_id, before, after):
                if named is not None:
                    _require_in_queue(read_job(db, named))
            if job_id in (before, after):
                raise NotAllowed(f"job {job_id} cannot be moved before or after itself; name another one")
            _reorder(db, job_id, before=before, after=after, last=last)
            return read_job(db, job_id)

    def set_priority(self, job_id: int, priority: int) -> Job:
        """Set the priority of a job. Among the jobs of that priority its id decides the order."""
        with self._database.writing() as db:
            _require_in_queue(read_job(db, job_id))
            change(db, job_id, {"priority": priority, "queue_position": None})
            return read_job(db, job_id)

    def state(self) -> QueueState:
        """Return whether the queue is paused, and why."""
        (row,) = self._rows(select(queue.c.paused_at, queue.c.because, queue.c.cause))
        return QueueState(**row)

    def pause(self, because: str, now: float, messages: Sequence[NewMessage] = (), *, cause: str | None = None) -> bool:
        """Start no more jobs; running ones continue. Return False, and add no message, if the queue was paused.

        `cause` is the check of `lq doctor` that resumes the queue when it passes; None if only the user resumes it.
        The user's pause replaces one with a cause.
        """
        free = queue.c.paused_at.is_(None)
        with self._database.writing() as db:
            pause = update(queue).where(free if cause is not None else or_(free, queue.c.cause.is_not(None)))
            changed = db.execute(pause.values(paused_at=now, because=because, cause=cause)).rowcount == 1
            if changed:
                insert_messages(db, messages, now)
            return changed

    def resume(self, *, cause: str | None = None) -> bool:
        """Start jobs again; with `cause`, only if the queue is paused for it. Return False if nothing changed."""
        with self._database.writing() as db:
            resume = update(queue).where(queue.c.paused_at.is_not(None))
            if cause is not None:
                resume = resume.where(queue.c.cause == cause)
            resume = resume.values(paused_at=None, because=None, cause=None)
            return db.execute(resume).rowcount == 1


def _blocked(db: Connection) -> list[tuple[int, int, str]]:
    """Return each queued job that can never start, with the job that it needed to succeed and the state of that."""
    on = jobs.alias("on_job")
    query = (
        select(dependencies.c.job_id, on.c.id, on.c.status)
        .join(jobs, jobs.c.id == dependencies.c.job_id)
        .join(on, on.c.id == dependencies.c.on_job_id)
        .where(jobs.c.status == Status.QUEUED, dependencies.c.any_end.is_(False), on.c.status.in_(NOT_SUCCEEDED))
        .order_by(dependencies.c.job_id, on.c.id.desc())
    )
    return list({row[0]: row for row in db.execute(query)}.values())  # the last one of a key stays: the lowest


def _skip(db: Connection, job_id: int, on: int, status: str, now: float) -> None:
    require_legal(job_id, Status.QUEUED, Status.SKIPPED)
    detail = f"job {on}, which must succeed first, {'was ' if status != Status.FAILED else ''}{status}"
    skipped = {"status": Status.SKIPPED, "reason": Reason.DEPENDENCY_FAILED, "detail": detail, "ended_at": now}
    change(db, job_id, skipped)


def _require_in_queue(job: Job) -> None:
    if job.status not in IN_QUEUE:
        raise NotAllowed(f"job {job.id} is {job.status}; only jobs that wait for their start can be moved")


def _reorder(db: Connection, job_id: int, *, before: int | None, after: int | None, last: bool) -> None:
    """Put a job among the others, and renumber the jobs of its new priority below the id of any later job."""
    query = select(jobs.c.id, jobs.c.priority).where(jobs.c.status.in_(IN_QUEUE), jobs.c.id != job_id)
    others = {row.id: row.priority for row in db.execute(query.order_by(*queue_order()))}
    if not others:
        return
    ids = list(others)
    if before is not None:
        index, neighbour = ids.index(before), before
    elif after is not None:
        index, neighbour = ids.index(after) + 1, after
    else:
        index, neighbour = (len(ids), ids[-1]) if last else (0, ids[0])
    priority = others[neighbour]
    priorities = others | {job_id: priority}
    equal = [other for other in (*ids[:index], job_id, *ids[index:]) if priorities[other] == priority]
    newest: int = db.execute(select(func.max(jobs.c.id))).scalar_one()
    for number, other in enumerate(equal, start=1):
        change(db, other, {"priority": priority, "queue_position": float(newest - len(equal) + number)})
