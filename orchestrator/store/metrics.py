"""Metrics: the progress points, validations, checkpoints and facts that a trainer reported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, Table, and_, func, select, update

from jobs.model.events import Kind
from jobs.model.job import CheckpointRecord, ProgressPoint, Validation
from orchestrator.store.database import Records
from orchestrator.store.job_queries import change
from orchestrator.store.rows import fields_of, to_validation
from orchestrator.store.schema import checkpoints, facts, points, validations


class MetricRecords(Records):
    """Metrics of jobs."""

    def points(self, job_id: int, *, superseded: bool = False, after: int = -1) -> list[ProgressPoint]:
        """Return the progress points that led to the present weights, by iteration.

        Args:
            superseded: return every point instead, in the order of arrival, including those that a resume repeated.
            after: only points after this iteration.
        """
        later = points.c.iteration > after
        rows = self._series(points, ProgressPoint, job_id, later, superseded=superseded)
        return [ProgressPoint(**row) for row in rows]

    def peak_memory(self, job_id: int) -> int | None:
        """Return the peak memory that the last attempt of a job reported, in bytes; None if it reported none."""
        last = select(func.max(points.c.attempt)).where(points.c.job_id == job_id).scalar_subquery()
        peaks = func.max(func.coalesce(points.c.footprint_bytes, 0)), func.max(func.coalesce(points.c.peak_bytes, 0))
        query = select(*peaks).where(points.c.job_id == job_id, points.c.attempt == last)
        return max((peak or 0 for row in self._rows(query) for peak in row.values()), default=0) or None

    def validations(
        self, job_id: int, *, kind: str = "validation", superseded: bool = False, after: int = -1
    ) -> list[Validation]:
        """Return the measurements on the validation set, or of another kind; the arguments are those of `points`."""
        of_kind = and_(validations.c.kind == kind, validations.c.iteration > after)
        rows = self._series(validations, Validation, job_id, of_kind, superseded=superseded)
        return [to_validation(row) for row in rows]

    def checkpoints(self, job_id: int, *, superseded: bool = False) -> list[CheckpointRecord]:
        """Return the reported checkpoints; the arguments are those of `points`."""
        rows = self._series(checkpoints, CheckpointRecord, job_id, superseded=superseded)
        return [CheckpointRecord(**row) for row in rows]

    def facts(self, job_id: int) -> dict[str, Any]:
        """Return what only the trainer can measure, by name: `dataset`, `parameters`, `answer.before.0` and others."""
        query = select(facts.c.name, facts.c.value).where(facts.c.job_id == job_id).order_by(facts.c.name)
        return {row["name"]: row["value"] for row in self._rows(query)}

    def _series(
        self, table: Table[Any], value: type[Any], job_id: int, *conditions: ColumnElement[bool], superseded: bool
    ) -> Sequence[RowMapping]:
        query = select(*fields_of(table, value)).where(table.c.job_id == job_id, *conditions)
        if superseded:
            return self._rows(query.order_by(table.c.id))
        return self._rows(query.where(~table.c.superseded).order_by(table.c.iteration, table.c.id))


def supersede_after(db: Connection, job_id: int, iteration: int) -> None:
    """Mark the metrics after an iteration as superseded: the job goes back to the weights of that iteration."""
    for table in (points, validations, checkpoints):
        later = and_(table.c.job_id == job_id, table.c.iteration > iteration)
        db.execute(update(table).where(later).values(superseded=True))
    change(db, job_id, {"iteration": iteration, **_last_losses(db, job_id)})


def _last_losses(db: Connection, job_id: int) -> dict[str, float | None]:
    """Return the last losses that led to the present weights."""
    scheduled = validations.c.kind == Kind.VALIDATION.value
    losses: dict[str, float | None] = {}
    for name, table, loss, conditions in (
        ("train_loss", points, points.c.train_loss, []),
        ("val_loss", validations, validations.c.loss, [scheduled]),
    ):
        last = select(loss).where(table.c.job_id == job_id, ~table.c.superseded, *conditions)
        losses[name] = db.execute(last.order_by(table.c.iteration.desc(), table.c.id.desc()).limit(1)).scalar()
    return losses
