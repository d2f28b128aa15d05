"""The outbox: messages written with their cause, delivered later, at least once."""

from __future__ import annotations

import dataclasses

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.sqlite import insert

from jobs.job import Message, NewMessage, ServiceResult
from orchestrator.store.database import Database
from orchestrator.store.rows import from_message, to_message
from orchestrator.store.tables import outbox


class Outbox(Database):
    """What the notifier asks."""

    def add_message(self, message: NewMessage, now: float) -> Message | None:
        """Put a message into the outbox, due at once.

        Returns:
            The message; None where one with its key was there already.
        """
        with self.writing() as db:
            message_id = insert_message(db, message, now)
            return None if message_id is None else _read_message(db, message_id)

    def message(self, message_id: int) -> Message:
        """Return a message.

        Raises:
            LookupError: no message has this id.
        """
        with self.reading() as db:
            return _read_message(db, message_id)

    def messages(self, job_id: int | None = None) -> list[Message]:
        """Return the messages of a job, or all of them, by id."""
        query = select(*outbox.columns).order_by(outbox.c.id)
        if job_id is not None:
            query = query.where(outbox.c.job_id == job_id)
        with self.reading() as db:
            return [to_message(row) for row in db.execute(query).mappings()]

    def due_messages(self, now: float) -> list[Message]:
        """Return the messages that are not settled and whose next try is due, by id."""
        due = select(*outbox.columns).where(outbox.c.settled.is_(None), outbox.c.next_try_at <= now)
        with self.reading() as db:
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
            settled: delivered, gave_up or nobody; None while there is more to try.
            now: unix seconds.
        """
        values = {"services": [dataclasses.asdict(service) for service in services], "settled": settled}
        with self.writing() as db:
            db.execute(update(outbox).where(outbox.c.id == message_id).values(**values, next_try_at=next_try_at))


def insert_message(db: Connection, message: NewMessage, now: float) -> int | None:
    """Put a message into the outbox with its cause; return its id, None where its key was there already."""
    new = insert(outbox).values(**from_message(message, now)).on_conflict_do_nothing(index_elements=["key"])
    message_id: int | None = db.execute(new.returning(outbox.c.id)).scalar()
    return message_id


def _read_message(db: Connection, message_id: int) -> Message:
    row = db.execute(select(*outbox.columns).where(outbox.c.id == message_id)).mappings().first()
    if row is None:
        raise LookupError(f"no message {message_id} in the outbox")
    return to_message(row)
