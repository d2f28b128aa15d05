"""The queue: the order of its jobs, and whether it starts jobs at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from sqlalchemy import Connection, func, select, update

from jobs.model.errors import NotAllowed
from jobs.model.job import Job, NewMessage, QueueState
from jobs.model.outcomes import Reason
from jobs.model.states import ENDED, LIVE, Status, require_legal
from orchestrator.store.database import Records
from orchestrator.store.job_queries import change, in_line, queue_due, read_job, select_jobs
from orchestrator.store.outbox import insert_messages
from orchestrator.store.rows import to_job
from orchestrator.store.schema import dependencies, jobs, queue

IN_LINE = LIVE - {Status.RUNNING}


HOPELESS = ENDED - {Status.SUCCEEDED}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Waiting:
    """A job that waits for its turn, with what it asked for."""

    job: Job
    spec_json: str


class JobQueue(Records):
    """The queue."""

    def waiting(self) -> list[Waiting]:
        """Return the queued and waiting jobs in the order in which they get their turn."""
        query = select_jobs().add_columns(jobs.c.spec_json).order_by(*in_line())
        query = query.where(jobs.c.status.in_((Status.QUEUED, Status.WAITING)))
        with self._database.reading() as db:
            return [Waiting(job=to_job(row), spec_json=row["spec_json"]) for row in db.execute(query).mappings()]

    def enqueue_due(self, now: float, tell: Callable[[Job], Sequence[NewMessage]]) -> list[Job]:
        """Queue the waiting jobs whose time has come, and skip the queued ones that can never start.

        Args:
            now: unix seconds.
            tell: returns the messages that a skipped job causes.

        Returns:
            The skipped jobs.
        """
        with self._database.writing() as db:
            queue_due(db, now)
            skipped: list[int] = []
            while found := _hopeless(db):  # who waits for a job that is skipped is skipped too
                for job_id, on, status in found:
                    _skip(db, job_id, on, status, now)
                skipped += [job_id for job_id, _, _ in found]
            told = [read_job(db, job_id) for job_id in skipped]
            for job in told:
                insert_messages(db, tell(job), now)
            return told

    def move(self, job_id: int, *, before: int | None = None, after: int | None = None, last: bool = False) -> Job:
        """Give a job another place in the line; it takes the priority that holds there.

        Args:
            job_id: the job.
            before: it gets its turn right before this one.
            after: it gets its turn right after this one.
            last: it gets its turn after all others; without any of these, before all others.

        Raises:
            NoSuchJob: no job has one of these ids.
            NotAllowed: one of them does not wait for its turn, or both are the same job.
        """
        with self._database.writing() as db:
            for named in (job_id, before, after):
                if named is not None:
                    _require_in_line(read_job(db, named))
            if job_id in (before, after):
                raise NotAllowed(f"job {job_id} cannot be moved before or after itself; name another one")
            _place_anew(db, job_id, _others(db, job_id), before=before, after=after, last=last)
            return read_job(db, job_id)

    def set_priority(self, job_id: int, priority: int) -> Job:
        """Give a job another priority; among the jobs of that priority it stands where it was submitted.

        Raises:
            NoSuchJob: no job has this id.
            NotAllowed: it does not wait for its turn.
        """
        with self._database.writing() as db:
            _require_in_line(read_job(db, job_id))
            change(db, job_id, {"priority": priority, "place": None})
            return read_job(db, job_id)

    def state(self) -> QueueState:
        """Return whether the queue hands out jobs."""
        with self._database.reading() as db:
            row = db.execute(select(queue.c.paused_at, queue.c.because)).mappings().one()
        return QueueState(**row)

    def pause(self, because: str, now: float, messages: Sequence[NewMessage] = ()) -> bool:
        """Hand out no more jobs; say whether that changed anything. Jobs that run go on.

        Args:
            because: why, in one line.
            now: unix seconds.
            messages: put into the outbox with it, where it changes anything.
        """
        with self._database.writing() as db:
            paused = update(queue).where(queue.c.paused_at.is_(None)).values(paused_at=now, because=because)
            changed = db.execute(paused).rowcount == 1
            if changed:
                insert_messages(db, messages, now)
            return changed

    def resume(self) -> bool:
        """Hand out jobs again; say whether that changed anything."""
        with self._database.writing() as db:
            resumed = update(queue).where(queue.c.paused_at.is_not(None)).values(paused_at=None, because=None)
            return db.execute(resumed).rowcount == 1


def _hopeless(db: Connection) -> list[tuple[int, int, str]]:
    """Return the queued jobs that can never start, each with the job it waited for and how that ended."""
    on = jobs.alias("on_job")
    query = (
        select(dependencies.c.job_id, func.min(on.c.id), on.c.status)
        .join(jobs, jobs.c.id == dependencies.c.job_id)
        .join(on, on.c.id == dependencies.c.on_job_id)
        .where(jobs.c.status == Status.QUEUED, dependencies.c.any_end.is_(False), on.c.status.in_(HOPELESS))
        .group_by(dependencies.c.job_id)
    )
    return [(row[0], row[1], row[2]) for row in db.execute(query)]


def _skip(db: Connection, job_id: int, on: int, status: str, now: float) -> None:
    require_legal(job_id, Status.QUEUED, Status.SKIPPED)
    detail = f"job {on}, which must succeed first, {'was ' if status != Status.FAILED else ''}{status}"
    skipped = {"status": Status.SKIPPED, "reason": Reason.DEPENDENCY_FAILED, "detail": detail, "ended_at": now}
    change(db, job_id, skipped)


def _require_in_line(job: Job) -> None:
    if job.status not in IN_LINE:
        raise NotAllowed(f"job {job.id} is {job.status}; only jobs that wait for their turn have a place in the line")


def _others(db: Connection, job_id: int) -> list[tuple[int, int]]:
    """Return id and priority of every job in the line but one, in order."""
    query = select(jobs.c.id, jobs.c.priority).where(jobs.c.status.in_(IN_LINE), jobs.c.id != job_id)
    return [(row[0], row[1]) for row in db.execute(query.order_by(*in_line()))]


def _place_anew(
    db: Connection,
    job_id: int,
    others: Sequence[tuple[int, int]],
    *,
    before: int | None,
    after: int | None,
    last: bool,
) -> None:
    """Put a job among the others, and number those of its new priority, all below the id of a later submit."""
    if not others:
        return
    ids = [other for other, _ in others]
    at = ids.index(before) if before is not None else ids.index(after) + 1 if after is not None else len(ids) * last
    beside = after if after is not None else before if before is not None else ids[-1 if last else 0]
    priority = others[ids.index(beside)][1]
    line = [*ids[:at], job_id, *ids[at:]]
    priorities = dict(others) | {job_id: priority}
    alike = [one for one in line if priorities[one] == priority]
    newest: int = db.execute(select(func.max(jobs.c.id))).scalar_one()
    for number, one in enumerate(alike, start=1):
        change(db, one, {"priority": priority, "place": float(newest - len(alike) + number)})
