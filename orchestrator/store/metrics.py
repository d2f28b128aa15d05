"""Metrics: the progress points, validations, checkpoints and facts that a trainer reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, Table, and_, func, select, update

from jobs.model.events import Kind
from jobs.model.job import CheckpointRecord, ProgressPoint, Validation
from orchestrator.store.database import Records
from orchestrator.store.job_queries import change
from orchestrator.store.rows import fields_of, to_validation
from orchestrator.store.schema import checkpoints, facts, points, validations

_T = TypeVar("_T")


class MetricRecords(Records):
    """Metrics of jobs."""

    def points(self, job_id: int, *, superseded: bool = False, after: int = -1) -> list[ProgressPoint]:
        """Return the progress points that led to the present weights, by iteration.

        Args:
            job_id: the job.
            superseded: return every point instead, in the order of arrival, including those that a resume repeated.
            after: only points after this iteration.
        """
        later = points.c.iteration > after
        return self._series(points, ProgressPoint, ProgressPoint, job_id, later, superseded=superseded)

    def peak_memory(self, job_id: int) -> int | None:
        """Return the peak memory that the last attempt of a job reported, in bytes; None if it reported none."""
        last = select(func.max(points.c.attempt)).where(points.c.job_id == job_id).scalar_subquery()
        peaks = func.max(func.coalesce(points.c.footprint_bytes, 0)), func.max(func.coalesce(points.c.peak_bytes, 0))
        query = select(*peaks).where(points.c.job_id == job_id, points.c.attempt == last)
        with self._database.reading() as db:
            footprint, peak = db.execute(query).one()
        return max(footprint or 0, peak or 0) or None

    def validations(
        self, job_id: int, *, kind: str = "validation", superseded: bool = False, after: int = -1
    ) -> list[Validation]:
        """Return the measurements on the validation set, or of another kind; the arguments are those of `points`."""
        of_kind = and_(validations.c.kind == kind, validations.c.iteration > after)
        return self._series(validations, Validation, to_validation, job_id, of_kind, superseded=superseded)

    def checkpoints(self, job_id: int, *, superseded: bool = False) -> list[CheckpointRecord]:
        """Return the reported checkpoints; the arguments are those of `points`."""
        return self._series(checkpoints, CheckpointRecord, CheckpointRecord, job_id, superseded=superseded)

    def facts(self, job_id: int) -> dict[str, Any]:
        """Return what only the trainer can measure, by name: `dataset`, `parameters`, `answer.before.0` and others."""
        query = select(facts.c.name, facts.c.value).where(facts.c.job_id == job_id).order_by(facts.c.name)
        with self._database.reading() as db:
            return {row["name"]: row["value"] for row in db.execute(query).mappings()}

    def _series(
        self,
        table: Table[Any],
        value: type[_T],
        read: Callable[..., _T],
        job_id: int,
        *conditions: ColumnElement[bool],
        superseded: bool,
    ) -> list[_T]:
        query = select(*fields_of(table, value)).where(table.c.job_id == job_id, *conditions)
        if superseded:
            query = query.order_by(table.c.id)
        else:
            query = query.where(table.c.superseded.is_(False)).order_by(table.c.iteration, table.c.id)
        with self._database.reading() as db:
            return [read(**row) for row in db.execute(query).mappings()]


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
    for name, loss, conditions in (
        ("train_loss", points.c.train_loss, (points.c.job_id == job_id, points.c.superseded.is_(False))),
        (
            "val_loss",
            validations.c.loss,
            (validations.c.job_id == job_id, validations.c.superseded.is_(False), scheduled),
        ),
    ):
        last = select(loss).where(*conditions).order_by(loss.table.c.iteration.desc(), loss.table.c.id.desc())
        losses[name] = db.execute(last.limit(1)).scalar()
    return losses
