"""The line of jobs that wait for their turn: its order, who waits for whom, and moving a job in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from sqlalchemy import Connection, func, select

from jobs.model.errors import NotAllowed
from jobs.model.job import Dependency, Job, NewMessage
from jobs.model.outcomes import Reason
from jobs.model.states import ENDED, LIVE, Status, require_legal
from orchestrator.store.database import Database
from orchestrator.store.jobs import change, in_line, queue_due, read_job, select_jobs
from orchestrator.store.outbox import insert_messages
from orchestrator.store.rows import to_job
from orchestrator.store.schema import dependencies, jobs

IN_LINE = LIVE - {Status.RUNNING}
HOPELESS = ENDED - {Status.SUCCEEDED}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Waiting:
    """A job that waits for its turn, with what it asked for."""

    job: Job
    spec_json: str


class Line(Database):
    """What is asked about the line."""

    def line(self) -> list[Waiting]:
        """Return the queued and waiting jobs in the order in which they get their turn."""
        query = select_jobs().add_columns(jobs.c.spec_json).order_by(*in_line())
        query = query.where(jobs.c.status.in_((Status.QUEUED, Status.WAITING)))
        with self.reading() as db:
            return [Waiting(job=to_job(row), spec_json=row["spec_json"]) for row in db.execute(query).mappings()]

    def awaited(self) -> dict[int, tuple[int, ...]]:
        """Return the jobs that each job waits for, by its id; a job that waits for nobody is not there."""
        found: dict[int, tuple[int, ...]] = {}
        for one in self.dependencies():
            found[one.job_id] = (*found.get(one.job_id, ()), one.on)
        return found

    def dependencies(self, *, of: int | None = None) -> list[Dependency]:
        """Return who waits for whom, of the jobs that may still start.

        Args:
            of: of this job only, in whatever state it is.
        """
        on, waits = jobs.alias("on_job"), jobs.alias("waits")
        query = (
            select(dependencies.c.job_id, dependencies.c.on_job_id, dependencies.c.any_end, on.c.status)
            .join(on, on.c.id == dependencies.c.on_job_id)
            .order_by(dependencies.c.job_id, dependencies.c.on_job_id)
        )
        if of is not None:
            query = query.where(dependencies.c.job_id == of)
        else:
            query = query.join(waits, waits.c.id == dependencies.c.job_id).where(waits.c.status.in_(LIVE))
        with self.reading() as db:
            return [
                Dependency(job_id=row.job_id, on=row.on_job_id, any_end=row.any_end, status=Status(row.status))
                for row in db.execute(query)
            ]

    def called(self, name: str) -> list[int]:
        """Return the ids of every job of the newest group of this name, else of the newest job of this name."""
        with self.reading() as db:
            group = db.execute(select(jobs.c.id).where(jobs.c.group_name == name).order_by(jobs.c.id)).scalars().all()
            newest = select(jobs.c.id).where(jobs.c.name == name).order_by(jobs.c.id.desc()).limit(1)
            return list(group) or list(db.execute(newest).scalars())

    def call_due(self, now: float, tell: Callable[[Job], Sequence[NewMessage]]) -> list[Job]:
        """Queue the waiting jobs whose time has come, and skip the queued ones that can never start.

        Args:
            now: unix seconds.
            tell: returns the messages that a skipped job causes.

        Returns:
            The skipped jobs.
        """
        with self.writing() as db:
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
        with self.writing() as db:
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
        with self.writing() as db:
            _require_in_line(read_job(db, job_id))
            change(db, job_id, {"priority": priority, "place": None})
            return read_job(db, job_id)


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
