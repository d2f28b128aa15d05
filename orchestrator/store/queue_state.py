"""The queue's own state: handing out jobs, or paused and why."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select, update

from jobs.model.job import NewMessage, QueueState
from orchestrator.store.database import Database
from orchestrator.store.outbox import insert_messages
from orchestrator.store.schema import queue


class QueueRecord(Database):
    """What is asked about the queue as a whole."""

    def queue_state(self) -> QueueState:
        """Return whether the queue hands out jobs."""
        with self.reading() as db:
            row = db.execute(select(queue.c.paused_at, queue.c.because)).mappings().one()
        return QueueState(**row)

    def pause_queue(self, because: str, now: float, messages: Sequence[NewMessage] = ()) -> bool:
        """Hand out no more jobs; say whether that changed anything. Jobs that run go on.

        Args:
            because: why, in one line.
            now: unix seconds.
            messages: put into the outbox with it, where it changes anything.
        """
        with self.writing() as db:
            paused = update(queue).where(queue.c.paused_at.is_(None)).values(paused_at=now, because=because)
            changed = db.execute(paused).rowcount == 1
            if changed:
                insert_messages(db, messages, now)
            return changed

    def resume_queue(self) -> bool:
        """Hand out jobs again; say whether that changed anything."""
        with self.writing() as db:
            resumed = update(queue).where(queue.c.paused_at.is_not(None)).values(paused_at=None, because=None)
            return db.execute(resumed).rowcount == 1
