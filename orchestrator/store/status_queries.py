"""Queries of `lq status`: little of each job, found by an index, however long its run is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence

from sqlalchemy import func, select

from jobs.model.events import Kind
from jobs.model.job import Incident, ProgressPoint
from orchestrator.store.database import Records
from orchestrator.store.rows import fields_of, to_incident, to_point
from orchestrator.store.schema import attempts, checkpoints, incidents, points, validations

_AT_ONCE = 500
"""Ids in one question; SQLite takes some 30,000 parameters."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Best:
    """The lowest validation of a job so far."""

    loss: float  # nats per token
    iteration: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Life:
    """The attempt of a job that has not ended."""

    number: int
    since: float  # unix seconds
    phase: str | None  # what it is doing, as far as it said


class StatusQueries(Records):
    """Queries of `lq status`."""

    def data_version(self) -> int:
        """Return a number that another program's change of the store changes; nothing is read for it."""
        with self._database.reading() as db:
            found: int = db.exec_driver_sql("PRAGMA data_version").scalar_one()
            return found

    def recent_points(self, job_id: int, most: int) -> list[ProgressPoint]:
        """Return the last progress reports that lead to the present weights, the oldest first.

        Args:
            job_id: whose.
            most: how many.
        """
        query = select(*fields_of(points, ProgressPoint)).where(points.c.job_id == job_id, ~points.c.superseded)
        query = query.order_by(points.c.iteration.desc(), points.c.id.desc()).limit(most)
        with self._database.reading() as db:
            return [to_point(row) for row in db.execute(query).mappings()][::-1]

    def recent_seconds(self, job_id: int, most: int) -> tuple[list[float], list[float]]:
        """Return the seconds that a job's last validations and last checkpoints took, at most `most` of each."""
        measured = select(validations.c.seconds).where(
            validations.c.job_id == job_id, validations.c.kind == Kind.VALIDATION.value
        )
        saved = select(checkpoints.c.seconds).where(checkpoints.c.job_id == job_id)
        with self._database.reading() as db:
            return (
                list(db.execute(measured.order_by(validations.c.id.desc()).limit(most)).scalars()),
                list(db.execute(saved.order_by(checkpoints.c.id.desc()).limit(most)).scalars()),
            )

    def best_validations(self, job_ids: Collection[int]) -> dict[int, Best]:
        """Return the lowest finite validation of each of these jobs that has one, by id."""
        # a loss that is no number is kept as text, which SQLite sorts behind every number; and beside a lone min() it
        # takes the other columns from the row of the minimum (sqlite.org/lang_select.html, "Bare columns")
        lowest = func.min(validations.c.loss).label("lowest")
        query = select(validations.c.job_id, validations.c.iteration, lowest)
        query = query.where(validations.c.kind == Kind.VALIDATION.value, ~validations.c.superseded)
        found: dict[int, Best] = {}
        with self._database.reading() as db:
            for ids in _parts(job_ids):
                rows = db.execute(query.where(validations.c.job_id.in_(ids)).group_by(validations.c.job_id))
                best = {row.job_id: Best(loss=row.lowest, iteration=row.iteration) for row in rows}
                found |= {job_id: one for job_id, one in best.items() if math.isfinite(one.loss)}
        return found

    def incident_counts(self, job_ids: Collection[int]) -> dict[int, int]:
        """Return how many incidents each of these jobs has, by id; those without any are not named."""
        found: dict[int, int] = {}
        with self._database.reading() as db:
            for ids in _parts(job_ids):
                query = select(incidents.c.job_id, func.count()).where(incidents.c.job_id.in_(ids))
                found |= {row[0]: row[1] for row in db.execute(query.group_by(incidents.c.job_id))}
        return found

    def newest_incident(self, job_id: int) -> Incident | None:
        """Return the incident of a job that was recorded last; None where it has none."""
        query = select(*fields_of(incidents, Incident)).where(incidents.c.job_id == job_id)
        with self._database.reading() as db:
            row = db.execute(query.order_by(incidents.c.id.desc()).limit(1)).mappings().first()
        return None if row is None else to_incident(row)

    def live_attempt(self, job_id: int) -> Life | None:
        """Return the attempt of a job that lives; None where none does."""
        query = select(attempts.c.number, attempts.c.started_at, attempts.c.phase)
        query = query.where(attempts.c.job_id == job_id, attempts.c.ended_at.is_(None))
        with self._database.reading() as db:
            row = db.execute(query).first()
        return None if row is None else Life(number=row.number, since=row.started_at, phase=row.phase)


def _parts(job_ids: Collection[int]) -> Iterator[Sequence[int]]:
    ids = list(job_ids)
    return (ids[start : start + _AT_ONCE] for start in range(0, len(ids), _AT_ONCE))
