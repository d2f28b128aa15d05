"""The outbox: messages are written with their cause, and delivered later, at least once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, true, update
from sqlalchemy.dialects.sqlite import insert

from jobs.model.job import Message, NewMessage, ServiceResult
from jobs.policies.delivery import DIGEST, due_at
from orchestrator.store.database import Records
from orchestrator.store.rows import from_message, to_message
from orchestrator.store.schema import outbox


class Outbox(Records):
    """Messages."""

    def add(self, message: NewMessage, now: float) -> Message | None:
        """Add a message that is due at the time that `due_at` gives; None if the outbox has one with its key."""
        with self._database.writing() as db:
            message_id = insert_message(db, message, now)
            return None if message_id is None else _read_message(db, message_id)

    def get(self, message_id: int) -> Message:
        """Return a message."""
        with self._database.reading() as db:
            return _read_message(db, message_id)

    def has(self, key: str) -> bool:
        """Return whether a message with this key was ever written."""
        return self._first(select(outbox.c.id).where(outbox.c.key == key)) is not None

    def messages(self, job_id: int | None = None) -> list[Message]:
        """Return the messages of a job by id; None for all messages."""
        return self._read(outbox.c.job_id == job_id if job_id is not None else true())

    def related(self, message: Message) -> list[Message]:
        """Return the messages that may repeat this one's content, by id: those of its job, and later digests."""
        digest = and_(outbox.c.event == DIGEST, outbox.c.id > message.id)
        own = outbox.c.job_id == message.job_id if message.job_id is not None else outbox.c.id == message.id
        return self._read(or_(own, digest))

    def last_digest(self) -> Message | None:
        """Return the newest digest."""
        row = self._first(select(*outbox.columns).where(outbox.c.event == DIGEST).order_by(outbox.c.id.desc()))
        return None if row is None else to_message(row)

    def undelivered(self, since: float) -> list[Message]:
        """Return the messages that are still to be delivered, and those written since then and given up, by id."""
        given_up = and_(outbox.c.settled == "gave_up", outbox.c.created_at >= since)
        return self._read(or_(outbox.c.settled.is_(None), given_up))

    def due(self, now: float) -> list[Message]:
        """Return the messages that are not settled and whose next try is due, by id."""
        return self._read(and_(outbox.c.settled.is_(None), outbox.c.next_try_at <= now))

    def record_delivery(
        self,
        message_id: int,
        *,
        services: tuple[ServiceResult, ...],
        next_try_at: float | None,
        settled: str | None,
        now: float,
    ) -> None:
        """Record the result of each service.

        Args:
            next_try_at: unix seconds; None once settled.
            settled: delivered, gave_up, folded or nobody; None if another try follows.
        """
        values = {"services": [dataclasses.asdict(service) for service in services], "settled": settled}
        with self._database.writing() as db:
            db.execute(update(outbox).where(outbox.c.id == message_id).values(**values, next_try_at=next_try_at))

    def _read(self, condition: ColumnElement[bool]) -> list[Message]:
        query = select(*outbox.columns).where(condition).order_by(outbox.c.id)
        return [to_message(row) for row in self._rows(query)]


def insert_message(db: Connection, message: NewMessage, now: float) -> int | None:
    """Add a message together with its cause; return its id, or None if the outbox has one with its key."""
    due = due_at(_previous(db, message), now)
    new = insert(outbox).values(**from_message(message, now, due)).on_conflict_do_nothing(index_elements=["key"])
    message_id: int | None = db.execute(new.returning(outbox.c.id)).scalar()
    return message_id


def insert_messages(db: Connection, new: Sequence[NewMessage], now: float) -> None:
    """Add messages together with their cause."""
    for message in new:
        insert_message(db, message, now)


def _previous(db: Connection, message: NewMessage) -> float | None:
    """Return when the last message of the same event about the same job is or was due."""
    if message.job_id is None:
        return None
    same_kind = and_(outbox.c.job_id == message.job_id, outbox.c.event == message.event)
    last = select(func.max(func.coalesce(outbox.c.due_at, outbox.c.created_at))).where(same_kind)
    due: float | None = db.execute(last).scalar()
    return due


def _read_message(db: Connection, message_id: int) -> Message:
    row = db.execute(select(*outbox.columns).where(outbox.c.id == message_id)).mappings().first()
    if row is None:
        raise LookupError(f"no message {message_id} in the outbox")
    return to_message(row)
