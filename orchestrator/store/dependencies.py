"""Dependencies: jobs that start only after other jobs have ended."""

from __future__ import annotations

from sqlalchemy import select

from jobs.model.job import Dependency
from jobs.model.states import LIVE, Status
from orchestrator.store.database import Records
from orchestrator.store.schema import dependencies, jobs


class DependencyRecords(Records):
    """Dependencies between jobs."""

    def find(self, *, of: int | None = None) -> list[Dependency]:
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
        with self._database.reading() as db:
            return [
                Dependency(job_id=row.job_id, on=row.on_job_id, any_end=row.any_end, status=Status(row.status))
                for row in db.execute(query)
            ]

    def awaited(self) -> dict[int, tuple[int, ...]]:
        """Return the jobs that each job waits for, by its id; a job that waits for nobody is not there."""
        found: dict[int, tuple[int, ...]] = {}
        for one in self.find():
            found[one.job_id] = (*found.get(one.job_id, ()), one.on)
        return found
