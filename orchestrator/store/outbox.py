"""The outbox: messages are written with their cause, delivered later, and delivered at least once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sqlalchemy import Connection, and_, func, or_, select, update
from sqlalchemy.dialects.sqlite import insert

from jobs.model.job import Message, NewMessage, ServiceResult
from jobs.policies.delivery import DIGEST, due_at
from orchestrator.store.database import Records
from orchestrator.store.rows import from_message, to_message
from orchestrator.store.schema import outbox


class Outbox(Records):
    """Messages."""

    def add(self, message: NewMessage, now: float) -> Message | None:
        """Put a message into the outbox, due at once or when jobs.outbox.due_at lets it.

        Returns:
            The message; None where one with its key was there already.
        """
        with self._database.writing() as db:
            message_id = insert_message(db, message, now)
            return None if message_id is None else _read_message(db, message_id)

    def get(self, message_id: int) -> Message:
        """Return a message.

        Raises:
            LookupError: no message has this id.
        """
        with self._database.reading() as db:
            return _read_message(db, message_id)

    def has(self, key: str) -> bool:
        """Say whether a message with this key was ever written."""
        with self._database.reading() as db:
            return db.execute(select(outbox.c.id).where(outbox.c.key == key)).first() is not None

    def messages(self, job_id: int | None = None) -> list[Message]:
        """Return the messages of a job, or all of them, by id."""
        query = select(*outbox.columns).order_by(outbox.c.id)
        if job_id is not None:
            query = query.where(outbox.c.job_id == job_id)
        with self._database.reading() as db:
            return [to_message(row) for row in db.execute(query).mappings()]

    def related(self, message: Message) -> list[Message]:
        """Return what may tell of a message or be told by it, by id: messages of its job, and later digests."""
        digest = and_(outbox.c.event == DIGEST, outbox.c.id > message.id)
        own = outbox.c.job_id == message.job_id if message.job_id is not None else outbox.c.id == message.id
        with self._database.reading() as db:
            rows = db.execute(select(*outbox.columns).where(or_(own, digest)).order_by(outbox.c.id)).mappings()
            return [to_message(row) for row in rows]

    def last_digest(self) -> Message | None:
        """Return the digest that was written last."""
        last = select(*outbox.columns).where(outbox.c.event == DIGEST).order_by(outbox.c.id.desc()).limit(1)
        with self._database.reading() as db:
            row = db.execute(last).mappings().first()
            return None if row is None else to_message(row)

    def undelivered(self, since: float) -> list[Message]:
        """Return the messages still to be delivered, and those given up that were written after `since`, by id."""
        given_up = and_(outbox.c.settled == "gave_up", outbox.c.created_at >= since)
        query = select(*outbox.columns).where(or_(outbox.c.settled.is_(None), given_up)).order_by(outbox.c.id)
        with self._database.reading() as db:
            return [to_message(row) for row in db.execute(query).mappings()]

    def due(self, now: float) -> list[Message]:
        """Return the messages that are not settled and whose next try is due, by id."""
        due = select(*outbox.columns).where(outbox.c.settled.is_(None), outbox.c.next_try_at <= now)
        with self._database.reading() as db:
            return [to_message(row) for row in db.execute(due.order_by(outbox.c.id)).mappings()]

    def record_delivery(
        self,
        message_id: int,
        *,
        services: tuple[ServiceResult, ...],
        next_try_at: float | None,
        settled: str | None,
        now: float,
    ) -> None:
        """Record what happened with each service.

        Args:
            message_id: the message.
            services: every service's result so far.
            next_try_at: unix seconds; None once settled.
            settled: delivered, gave_up, folded or nobody; None while there is more to try.
            now: unix seconds.
        """
        values = {"services": [dataclasses.asdict(service) for service in services], "settled": settled}
        with self._database.writing() as db:
            db.execute(update(outbox).where(outbox.c.id == message_id).values(**values, next_try_at=next_try_at))


def insert_message(db: Connection, message: NewMessage, now: float) -> int | None:
    """Put a message into the outbox with its cause; return its id, None where its key was there already."""
    due = due_at(_previous(db, message), now)
    new = insert(outbox).values(**from_message(message, now, due)).on_conflict_do_nothing(index_elements=["key"])
    message_id: int | None = db.execute(new.returning(outbox.c.id)).scalar()
    return message_id


def insert_messages(db: Connection, new: Sequence[NewMessage], now: float) -> None:
    """Put messages into the outbox with their cause."""
    for message in new:
        insert_message(db, message, now)


def _previous(db: Connection, message: NewMessage) -> float | None:
    """Return when the last message of this event about this job was, or will be, due."""
    if message.job_id is None:
        return None
    of_its_kind = and_(outbox.c.job_id == message.job_id, outbox.c.event == message.event)
    last = select(func.max(func.coalesce(outbox.c.due_at, outbox.c.created_at))).where(of_its_kind)
    due: float | None = db.execute(last).scalar()
    return due


def _read_message(db: Connection, message_id: int) -> Message:
    row = db.execute(select(*outbox.columns).where(outbox.c.id == message_id)).mappings().first()
    if row is None:
        raise LookupError(f"no message {message_id} in the outbox")
    return to_message(row)
