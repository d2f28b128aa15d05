"""Events: each line of events.jsonl enters the store once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from jobs.model.events import Event
from jobs.model.job import Incident
from orchestrator.store.database import Records
from orchestrator.store.event_fold import Fold
from orchestrator.store.incidents import insert_incidents
from orchestrator.store.job_queries import change, read_column
from orchestrator.store.schema import attempts, checkpoints, facts, jobs, points, validations


class EventRecords(Records):
    """Events of jobs."""

    def offset(self, job_id: int) -> int:
        """Return how many bytes of the job's events.jsonl are in the store."""
        with self._database.reading() as db:
            return int(read_column(db, job_id, jobs.c.events_offset))

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
        """Add events to the store, except those that it has (by attempt and seq).

        Args:
            events: in the order of the file.
            offset_before: bytes of events.jsonl before the first of them.
            offset_after: bytes up to the end of the last of them.
            steps_per_report: iterations per report.
            incidents: problems of reading the file; they are recorded in the same transaction.

        Returns:
            False, without a change, if the store is at another offset than `offset_before`.
        """
        with self._database.writing() as db:
            if read_column(db, job_id, jobs.c.events_offset) != offset_before:
                return False
            fold = Fold(job_id, seen=_last_seqs(db, job_id), steps_per_report=steps_per_report)
            for event in events:
                fold.add(event)
            _write(db, job_id, fold)
            insert_incidents(db, incidents)
            change(db, job_id, fold.job | {"events_offset": offset_after})
            return True


def _last_seqs(db: Connection, job_id: int) -> dict[int, int]:
    rows = db.execute(select(attempts.c.number, attempts.c.last_seq).where(attempts.c.job_id == job_id))
    return {row.number: row.last_seq for row in rows}


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
        # the supervisor may have recorded the child already
        unknown = and_(_is_attempt(job_id, attempt), attempts.c.child_pid.is_(None))
        db.execute(update(attempts).where(unknown).values(**child))
    for attempt, iteration in fold.rewound.items():
        for table in (points, validations, checkpoints):
            _supersede(db, table, job_id, attempt, after=iteration)
    for attempt, first in fold.reported_from.items():
        # if an attempt ended within a report, the next attempt sends the whole report, with the losses of both
        _supersede(db, points, job_id, attempt, after=first - 1)
    for table, rows in ((validations, fold.validations), (checkpoints, fold.checkpoints)):
        for row in rows:
            _supersede_same(db, table, row)


def _is_attempt(job_id: int, number: int) -> ColumnElement[bool]:
    return and_(attempts.c.job_id == job_id, attempts.c.number == number)


def _supersede(db: Connection, table: Table[Any], job_id: int, attempt: int, *, after: int) -> None:
    repeated = and_(table.c.job_id == job_id, table.c.attempt < attempt, table.c.iteration > after)
    db.execute(update(table).where(repeated).values(superseded=True))


def _supersede_same(db: Connection, table: Table[Any], row: Mapping[str, Any]) -> None:
    """Supersede the measurement or checkpoint of an earlier attempt that this row repeats."""
    same = [table.c[name] == row[name] for name in ("job_id", "iteration", "kind") if name in row]
    db.execute(update(table).where(*same, table.c.attempt < row["attempt"]).values(superseded=True))
