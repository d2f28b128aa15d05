"""Queries of `lq status` and `lq watch`: a few values of each job, found by an index however long its run is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence

from sqlalchemy import func, select

from jobs.model.events import Kind
from jobs.model.job import Incident, ProgressPoint
from orchestrator.store.database import Records
from orchestrator.store.rows import fields_of
from orchestrator.store.schema import attempts, checkpoints, incidents, points, validations

_IDS_PER_QUERY = 500
"""SQLite accepts about 30,000 parameters."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BestValidation:
    """The lowest validation loss of a job so far."""

    loss: float  # nats per token
    iteration: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunningAttempt:
    """The attempt of a job that has not ended."""

    number: int
    since: float  # unix seconds
    phase: str | None  # the last one that the trainer reported


class StatusQueries(Records):
    """Queries of `lq status`."""

    def data_version(self) -> int:
        """Return a number that changes if another process changes the store. It reads no table."""
        with self._database.reading() as db:
            version: int = db.exec_driver_sql("PRAGMA data_version").scalar_one()
            return version

    def recent_points(self, job_id: int, limit: int) -> list[ProgressPoint]:
        """Return the last progress points that led to the present weights, the oldest first."""
        query = select(*fields_of(points, ProgressPoint)).where(points.c.job_id == job_id, ~points.c.superseded)
        query = query.order_by(points.c.iteration.desc(), points.c.id.desc()).limit(limit)
        with self._database.reading() as db:
            return [ProgressPoint(**row) for row in db.execute(query).mappings()][::-1]

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

    def best_validations(self, job_ids: Collection[int]) -> dict[int, BestValidation]:
        """Return, by job id, the lowest finite validation loss of each of these jobs that has one."""
        # a loss that is not finite is stored as text, which SQLite sorts after every number; with a single min() it
        # takes the other columns from the row of the minimum (sqlite.org/lang_select.html, "Bare columns")
        lowest = func.min(validations.c.loss).label("lowest")
        query = select(validations.c.job_id, validations.c.iteration, lowest)
        query = query.where(validations.c.kind == Kind.VALIDATION.value, ~validations.c.superseded)
        best: dict[int, BestValidation] = {}
        with self._database.reading() as db:
            for ids in _parts(job_ids):
                rows = db.execute(query.where(validations.c.job_id.in_(ids)).group_by(validations.c.job_id))
                best |= {
                    row.job_id: BestValidation(loss=row.lowest, iteration=row.iteration)
                    for row in rows
                    if math.isfinite(row.lowest)
                }
        return best

    def incident_counts(self, job_ids: Collection[int]) -> dict[int, int]:
        """Return, by job id, the number of incidents of each of these jobs that has any."""
        counts: dict[int, int] = {}
        with self._database.reading() as db:
            for ids in _parts(job_ids):
                query = select(incidents.c.job_id, func.count()).where(incidents.c.job_id.in_(ids))
                counts |= {row[0]: row[1] for row in db.execute(query.group_by(incidents.c.job_id))}
        return counts

    def newest_incident(self, job_id: int) -> Incident | None:
        """Return the incident of a job that was recorded last."""
        query = select(*fields_of(incidents, Incident)).where(incidents.c.job_id == job_id)
        with self._database.reading() as db:
            row = db.execute(query.order_by(incidents.c.id.desc()).limit(1)).mappings().first()
        return None if row is None else Incident(**row)

    def running_attempt(self, job_id: int) -> RunningAttempt | None:
        """Return the attempt of a job that has not ended."""
        query = select(attempts.c.number, attempts.c.started_at, attempts.c.phase)
        query = query.where(attempts.c.job_id == job_id, attempts.c.ended_at.is_(None))
        with self._database.reading() as db:
            row = db.execute(query).first()
        return None if row is None else RunningAttempt(number=row.number, since=row.started_at, phase=row.phase)


def _parts(job_ids: Collection[int]) -> Iterator[Sequence[int]]:
    ids = list(job_ids)
    return (ids[start : start + _IDS_PER_QUERY] for start in range(0, len(ids), _IDS_PER_QUERY))
