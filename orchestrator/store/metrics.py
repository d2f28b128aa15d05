"""What was seen in the runs: events taken in once and for all, and the series they make."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, RowMapping, Table, and_, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from jobs.model.events import Event, Kind
from jobs.model.job import CheckpointRecord, Incident, ProgressPoint, Validation
from jobs.model.run_plan import Stage
from orchestrator.store.database import Database
from orchestrator.store.event_fold import Fold
from orchestrator.store.incidents import insert_incidents
from orchestrator.store.jobs import change, no_such_job
from orchestrator.store.rows import fields_of, to_checkpoint, to_point, to_validation
from orchestrator.store.run_plans import append_stage
from orchestrator.store.schema import attempts, checkpoints, facts, jobs, points, validations

_T = TypeVar("_T")


class Observations(Database):
    """What is taken in from events.jsonl, and asked about it."""

    def events_offset(self, job_id: int) -> int:
        """Return how many bytes of the job's events.jsonl are in the store.

        Raises:
            NoSuchJob: no job has this id.
        """
        with self.reading() as db:
            return _offset(db, job_id)

    def ingest(
        self,
        job_id: int,
        events: Sequence[Event],
        *,
        offset_before: int,
        offset_after: int,
        steps_per_report: int,
        now: float,
        incidents: Sequence[Incident] = (),
    ) -> bool:
        """Take events in, once: those already taken (by attempt and seq) are passed over.

        Args:
            job_id: whose events.
            events: in the order of the file.
            offset_before: bytes of events.jsonl read before them.
            offset_after: bytes read with them.
            steps_per_report: iterations per report.
            now: unix seconds.
            incidents: what reading the file brought up, recorded in the same transaction.

        Returns:
            False, with nothing written, where the store stands at another offset than `offset_before`.

        Raises:
            NoSuchJob: no job has this id.
        """
        with self.writing() as db:
            if _offset(db, job_id) != offset_before:
                return False
            fold = Fold(job_id, seen=_last_seqs(db, job_id), steps_per_report=steps_per_report)
            for event in events:
                fold.add(event)
            _write(db, job_id, fold)
            insert_incidents(db, incidents)
            change(db, job_id, fold.job | {"events_offset": offset_after})
            return True

    def points(self, job_id: int, *, superseded: bool = False, after: int = -1) -> list[ProgressPoint]:
        """Return the progress reports that lead to the present weights, by iteration.

        Args:
            job_id: whose.
            superseded: every one instead, those that a resume repeated too, in the order in which they came.
            after: only those of later iterations.
        """
        beyond = points.c.iteration > after
        return _series(self, points, ProgressPoint, to_point, job_id, beyond, superseded=superseded)

    def peak_of(self, job_id: int) -> int | None:
        """Return the most memory that a job's last attempt said it took, in bytes; None where it said nothing yet."""
        last = select(func.max(points.c.attempt)).where(points.c.job_id == job_id).scalar_subquery()
        most = func.max(func.coalesce(points.c.footprint_bytes, 0)), func.max(func.coalesce(points.c.peak_bytes, 0))
        with self.reading() as db:
            footprint, peak = db.execute(select(*most).where(points.c.job_id == job_id, points.c.attempt == last)).one()
        return max(footprint or 0, peak or 0) or None

    def validations(
        self, job_id: int, *, kind: str = "validation", superseded: bool = False, after: int = -1
    ) -> list[Validation]:
        """Return the measurements of the validation (or, by kind, the test) set, as `points` does."""
        of_kind = and_(validations.c.kind == kind, validations.c.iteration > after)
        return _series(self, validations, Validation, to_validation, job_id, of_kind, superseded=superseded)

    def checkpoints(self, job_id: int, *, superseded: bool = False) -> list[CheckpointRecord]:
        """Return the checkpoints the child reported, as `points` does."""
        return _series(self, checkpoints, CheckpointRecord, to_checkpoint, job_id, superseded=superseded)

    def go_back(self, job_id: int, stage: Stage, iteration: int, incident: Incident, *, now: float) -> None:
        """Append a stage that goes back, before an attempt begins; what was seen beyond its beginning is let go.

        Args:
            job_id: whose run plan.
            stage: the stage.
            iteration: where it begins.
            incident: tells it.
            now: unix seconds.
        """
        with self.writing() as db:
            append_stage(db, job_id, stage, now)
            let_go(db, job_id, iteration)
            insert_incidents(db, [incident])

    def facts(self, job_id: int) -> dict[str, Any]:
        """Return what only the trainer could see, by name: `dataset`, `parameters`, `answer.before.0` and such."""
        query = select(facts.c.name, facts.c.value).where(facts.c.job_id == job_id).order_by(facts.c.name)
        with self.reading() as db:
            return {row["name"]: row["value"] for row in db.execute(query).mappings()}

    def self_tests(self, job_id: int) -> dict[int, Mapping[str, Any]]:
        """Return what the self-test after each resume said (equal, measured, recorded), by attempt number."""
        query = (
            select(attempts.c.number, attempts.c.self_test)
            .where(attempts.c.job_id == job_id, attempts.c.self_test.is_not(None))
            .order_by(attempts.c.number)
        )
        with self.reading() as db:
            return {row["number"]: row["self_test"] for row in db.execute(query).mappings()}


def _offset(db: Connection, job_id: int) -> int:
    offset: int | None = db.execute(select(jobs.c.events_offset).where(jobs.c.id == job_id)).scalar()
    if offset is None:
        raise no_such_job(job_id)
    return offset


def _last_seqs(db: Connection, job_id: int) -> dict[int, int]:
    rows = db.execute(select(attempts.c.number, attempts.c.last_seq).where(attempts.c.job_id == job_id)).mappings()
    return {row["number"]: row["last_seq"] for row in rows}


def _write(db: Connection, job_id: int, fold: Fold) -> None:
    for table, rows in ((points, fold.points), (validations, fold.validations), (checkpoints, fold.checkpoints)):
        if rows:
            db.execute(insert(table), rows)
    for fact in fold.facts.values():
        new = upsert(facts).values(fact)
        db.execute(new.on_conflict_do_update(index_elements=["job_id", "name"], set_=fact))
    insert_incidents(db, fold.incidents)
    for attempt, values in fold.attempts.items():
        db.execute(update(attempts).where(_is_attempt(job_id, attempt)).values(**values))
    for attempt, child in fold.children.items():
        # the one who started the child may have said so already
        unknown = and_(_is_attempt(job_id, attempt), attempts.c.child_pid.is_(None))
        db.execute(update(attempts).where(unknown).values(**child))
    for attempt, iteration in fold.rewound.items():
        for table in (points, validations, checkpoints):
            _supersede(db, table, job_id, attempt, beyond=iteration)
    for attempt, first in fold.reported_from.items():
        # a report cut short by the end of its attempt comes whole from the next one, with the losses of both
        _supersede(db, points, job_id, attempt, beyond=first - 1)
    for table, rows in ((validations, fold.validations), (checkpoints, fold.checkpoints)):
        for row in rows:
            _supersede_same(db, table, row)


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


def _is_attempt(job_id: int, number: int) -> ColumnElement[bool]:
    return and_(attempts.c.job_id == job_id, attempts.c.number == number)


def _supersede(db: Connection, table: Table[Any], job_id: int, attempt: int, *, beyond: int) -> None:
    repeated = and_(table.c.job_id == job_id, table.c.attempt < attempt, table.c.iteration > beyond)
    db.execute(update(table).where(repeated).values(superseded=True))


def _supersede_same(db: Connection, table: Table[Any], row: Mapping[str, Any]) -> None:
    """Let a measurement or a checkpoint that an attempt repeats where it began take the place of the earlier one."""
    same = [table.c[name] == row[name] for name in ("job_id", "iteration", "kind") if name in row]
    db.execute(update(table).where(*same, table.c.attempt < row["attempt"]).values(superseded=True))


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
