"""By what a person calls jobs: ids from one to another, and names, which several jobs may have."""

from __future__ import annotations

from sqlalchemy import select

from jobs.model.job import Job
from orchestrator.store.database import Database
from orchestrator.store.jobs import select_jobs
from orchestrator.store.rows import to_job
from orchestrator.store.schema import jobs


class Naming(Database):
    """What is asked about ids and names."""

    def jobs_between(self, first: int, last: int) -> list[Job]:
        """Return the jobs whose ids lie between these, both included, by id."""
        query = select_jobs().where(jobs.c.id.between(first, last)).order_by(jobs.c.id)
        with self.reading() as db:
            return [to_job(row) for row in db.execute(query).mappings()]

    def jobs_named(self, name: str) -> list[Job]:
        """Return the jobs of this name by id; none where nobody is called so."""
        query = select_jobs().where(jobs.c.name == name).order_by(jobs.c.id)
        with self.reading() as db:
            return [to_job(row) for row in db.execute(query).mappings()]

    def names(self) -> list[str]:
        """Return every name that a job has, each once."""
        with self.reading() as db:
            return list(db.execute(select(jobs.c.name).distinct().order_by(jobs.c.name)).scalars())
