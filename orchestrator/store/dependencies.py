"""Dependencies: a job that starts only after other jobs have ended."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, delete, insert, select

from jobs.model.job import Dependency
from jobs.model.states import LIVE, Status
from orchestrator.store.database import Records
from orchestrator.store.rows import from_row
from orchestrator.store.schema import dependencies, jobs


class DependencyRecords(Records):
    """Dependencies between jobs."""

    def find(self, *, of: int | None = None) -> list[Dependency]:
        """Return the dependencies of every live job, or those of the job `of` in any state."""
        on, dependent = jobs.alias("on_job"), jobs.alias("dependent")
        query = (
            select(dependencies.c.job_id, dependencies.c.on_job_id.label("on"), dependencies.c.any_end, on.c.status)
            .join(on, on.c.id == dependencies.c.on_job_id)
            .order_by(dependencies.c.job_id, dependencies.c.on_job_id)
        )
        if of is not None:
            query = query.where(dependencies.c.job_id == of)
        else:
            query = query.join(dependent, dependent.c.id == dependencies.c.job_id).where(dependent.c.status.in_(LIVE))
        return [from_row(Dependency, row, status=Status(row["status"])) for row in self._rows(query)]

    def awaited(self) -> dict[int, tuple[int, ...]]:
        """Return, by job id, the ids of the jobs that each live job with dependencies waits for."""
        awaited: dict[int, tuple[int, ...]] = {}
        for dependency in self.find():
            awaited[dependency.job_id] = (*awaited.get(dependency.job_id, ()), dependency.on)
        return awaited


def insert_dependencies(db: Connection, job_id: int, after: Iterable[tuple[int, bool]]) -> None:
    """Add dependencies of a job: the id of another job, and whether that may end in any state."""
    for other, any_end in after:
        db.execute(insert(dependencies).values(job_id=job_id, on_job_id=other, any_end=any_end))


def replace_dependencies(db: Connection, job_id: int, after: Iterable[tuple[int, bool]]) -> None:
    """Replace all dependencies of a job."""
    db.execute(delete(dependencies).where(dependencies.c.job_id == job_id))
    insert_dependencies(db, job_id, after)
