"""Progress points that old runs need no more. Which those are is decided in jobs/thinning.py."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import and_, delete, func, select

from jobs.model.job import ProgressPoint
from jobs.model.states import Status
from orchestrator.store.database import Database
from orchestrator.store.job_records import change
from orchestrator.store.rows import fields_of
from orchestrator.store.tables import jobs, points

# a failed or cancelled job may be retried, and what cleaned ones have left is in the store alone
_WHOLE_FOR_GOOD = and_(jobs.c.status == Status.SUCCEEDED, jobs.c.cleaned_at.is_(None), jobs.c.thinned_from.is_(None))


class Thinning(Database):
    """What upkeep asks."""

    def thinnable(self, *, ended_before: float, more_than: int) -> list[int]:
        """Return the jobs of which points may be let go, by id.

        Args:
            ended_before: unix seconds.
            more_than: points; jobs with fewer are left alone.
        """
        count = select(func.count()).select_from(points).where(points.c.job_id == jobs.c.id).scalar_subquery()
        old = and_(jobs.c.ended_at < ended_before, _WHOLE_FOR_GOOD)
        with self.reading() as db:
            return sorted(db.execute(select(jobs.c.id).where(old, count > more_than)).scalars())

    def every_point(self, job_id: int) -> list[tuple[int, bool, ProgressPoint]]:
        """Return all points of a job as they came, each with its row and whether it leads to the last weights."""
        own = fields_of(points, ProgressPoint)
        query = select(points.c.id, points.c.superseded, *own).where(points.c.job_id == job_id).order_by(points.c.id)
        with self.reading() as db:
            return [
                (row["id"], not row["superseded"], ProgressPoint(**{column.name: row[column.name] for column in own}))
                for row in db.execute(query).mappings()
            ]

    def thin(self, job_id: int, stay: Collection[int]) -> int:
        """Let all points of a job go but some, and remember how many there were.

        Args:
            job_id: the job.
            stay: rows that stay.

        Returns:
            How many went; none where the job must be whole, or is whole no more.
        """
        own = points.c.job_id == job_id
        with self.writing() as db:
            there = select(func.count()).select_from(points).where(own).scalar_subquery()
            count = db.execute(select(there).where(jobs.c.id == job_id, _WHOLE_FOR_GOOD)).scalar()
            if count is None:
                return 0
            gone = db.execute(delete(points).where(own, points.c.id.not_in(stay))).rowcount
            change(db, job_id, {"thinned_from": count})
            return gone
