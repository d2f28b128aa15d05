"""Metrics: progress points, validations and checkpoints of runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, RowMapping, Table, and_, func, select, update

from jobs.model.events import Kind
from jobs.model.job import CheckpointRecord, ProgressPoint, Validation
from orchestrator.store.database import Database, Records
from orchestrator.store.job_queries import change
from orchestrator.store.rows import fields_of, to_checkpoint, to_point, to_validation
from orchestrator.store.schema import checkpoints, facts, points, validations

_T = TypeVar("_T")


class MetricRecords(Records):
    """Metrics of jobs."""

    def points(self, job_id: int, *, superseded: bool = False, after: int = -1) -> list[ProgressPoint]:
        """Return the progress reports that lead to the present weights, by iteration.

        Args:
            job_id: whose.
            superseded: every one instead, those that a resume repeated too, in the order in which they came.
            after: only those of later iterations.
        """
        beyond = points.c.iteration > after
        return _series(self._database, points, ProgressPoint, to_point, job_id, beyond, superseded=superseded)

    def peak_memory(self, job_id: int) -> int | None:
        """Return the most memory that a job's last attempt said it took, in bytes; None where it said nothing yet."""
        last = select(func.max(points.c.attempt)).where(points.c.job_id == job_id).scalar_subquery()
        most = func.max(func.coalesce(points.c.footprint_bytes, 0)), func.max(func.coalesce(points.c.peak_bytes, 0))
        with self._database.reading() as db:
            footprint, peak = db.execute(select(*most).where(points.c.job_id == job_id, points.c.attempt == last)).one()
        return max(footprint or 0, peak or 0) or None

    def validations(
        self, job_id: int, *, kind: str = "validation", superseded: bool = False, after: int = -1
    ) -> list[Validation]:
        """Return the measurements of the validation (or, by kind, the test) set, as `points` does."""
        of_kind = and_(validations.c.kind == kind, validations.c.iteration > after)
        return _series(self._database, validations, Validation, to_validation, job_id, of_kind, superseded=superseded)

    def checkpoints(self, job_id: int, *, superseded: bool = False) -> list[CheckpointRecord]:
        """Return the checkpoints the child reported, as `points` does."""
        return _series(self._database, checkpoints, CheckpointRecord, to_checkpoint, job_id, superseded=superseded)

    def facts(self, job_id: int) -> dict[str, Any]:
        """Return what only the trainer could see, by name: `dataset`, `parameters`, `answer.before.0` and such."""
        query = select(facts.c.name, facts.c.value).where(facts.c.job_id == job_id).order_by(facts.c.name)
        with self._database.reading() as db:
            return {row["name"]: row["value"] for row in db.execute(query).mappings()}


def _series(
    database: Database,
    table: Table[Any],
    value: type[_T],
    read: Callable[[RowMapping], _T],
    job_id: int,
    *conditions: ColumnElement[bool],
    superseded: bool,
) -> list[_T]:
    query = select(*fields_of(table, value)).where(table.c.job_id == job_id, *conditions)
    if superseded:
        query = query.order_by(table.c.id)
    else:
        query = query.where(table.c.superseded.is_(False)).order_by(table.c.iteration, table.c.id)
    with database.reading() as db:
        return [read(row) for row in db.execute(query).mappings()]


def let_go(db: Connection, job_id: int, iteration: int) -> None:
    """Let go of what was seen beyond an iteration: the weights it led to are given up."""
    for table in (points, validations, checkpoints):
        beyond = and_(table.c.job_id == job_id, table.c.iteration > iteration)
        db.execute(update(table).where(beyond).values(superseded=True))
    change(db, job_id, {"iteration": iteration, **_last_losses(db, job_id)})


def _last_losses(db: Connection, job_id: int) -> dict[str, float | None]:
    """Return the losses last seen of the present weights."""
    due = validations.c.kind == Kind.VALIDATION.value
    found: dict[str, float | None] = {}
    for name, loss, conditions in (
        ("train_loss", points.c.train_loss, (points.c.job_id == job_id, points.c.superseded.is_(False))),
        ("val_loss", validations.c.loss, (validations.c.job_id == job_id, validations.c.superseded.is_(False), due)),
    ):
        last = select(loss).where(*conditions).order_by(loss.table.c.iteration.desc(), loss.table.c.id.desc())
        found[name] = db.execute(last.limit(1)).scalar()
    return found
