"""Queries of `lq status` and `lq watch`: a few values of each job, found by an index however long its run is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from typing import Any

from sqlalchemy import Column, RowMapping, Select, func, select

from jobs.model.events import Kind
from jobs.model.job import Incident, ProgressPoint
from orchestrator.store.database import Records
from orchestrator.store.rows import fields_of, from_row
from orchestrator.store.schema import attempts, checkpoints, incidents, points, validations

_IDS_PER_QUERY = 500
"""SQLite accepts about 30,000 parameters."""

_SCHEDULED = validations.c.kind == Kind.VALIDATION.value


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
        return [ProgressPoint(**row) for row in self._rows(query)][::-1]

    def recent_seconds(self, job_id: int, most: int) -> tuple[list[float], list[float]]:
        """Return the seconds that a job's last validations and last checkpoints took, at most `most` of each."""
        measured = select(validations.c.seconds).where(_SCHEDULED, validations.c.job_id == job_id)
        saved = select(checkpoints.c.seconds).where(checkpoints.c.job_id == job_id)
        return (
            self._column(measured.order_by(validations.c.id.desc()).limit(most)),
            self._column(saved.order_by(checkpoints.c.id.desc()).limit(most)),
        )

    def best_validations(self, job_ids: Collection[int]) -> dict[int, BestValidation]:
        """Return, by job id, the lowest finite validation loss of each of these jobs that has one."""
        # a loss that is not finite is stored as text, which SQLite sorts after every number; with a single min() it
        # takes the other columns from the row of the minimum (sqlite.org/lang_select.html, "Bare columns")
        lowest = func.min(validations.c.loss).label("loss")
        query = select(validations.c.job_id, validations.c.iteration, lowest)
        query = query.where(_SCHEDULED, ~validations.c.superseded)
        rows = self._grouped(query, validations.c.job_id, job_ids)
        return {row["job_id"]: from_row(BestValidation, row) for row in rows if math.isfinite(row["loss"])}

    def incident_counts(self, job_ids: Collection[int]) -> dict[int, int]:
        """Return, by job id, the number of incidents of each of these jobs that has any."""
        query = select(incidents.c.job_id, func.count().label("count"))
        return {row["job_id"]: row["count"] for row in self._grouped(query, incidents.c.job_id, job_ids)}

    def newest_incident(self, job_id: int) -> Incident | None:
        """Return the incident of a job that was recorded last."""
        query = select(*fields_of(incidents, Incident)).where(incidents.c.job_id == job_id)
        row = self._first(query.order_by(incidents.c.id.desc()))
        return None if row is None else Incident(**row)

    def running_attempt(self, job_id: int) -> RunningAttempt | None:
        """Return the attempt of a job that has not ended."""
        query = select(attempts.c.number, attempts.c.started_at.label("since"), attempts.c.phase)
        row = self._first(query.where(attempts.c.job_id == job_id, attempts.c.ended_at.is_(None)))
        return None if row is None else RunningAttempt(**row)

    def _grouped(self, query: Select[*tuple[Any, ...]], job_id: Column[int], ids: Collection[int]) -> list[RowMapping]:
        """Return the rows of a query that has one row for each job, for these jobs."""
        listed = list(ids)
        parts = (listed[start : start + _IDS_PER_QUERY] for start in range(0, len(listed), _IDS_PER_QUERY))
        return [row for part in parts for row in self._rows(query.where(job_id.in_(part)).group_by(job_id))]
