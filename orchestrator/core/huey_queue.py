"""The wake-up queue: Huey says that there is work, never which. The only file that imports huey.

Huey deletes a message before it runs it, so any of them may be lost; they may also be doubled. The store is the truth,
whoever hears a bell looks there, and a tick every minute rings for what was lost (design.md, "The six decisions").
Messages carry integers in JSON: reading one can never run code.
"""

from __future__ import annotations

import datetime
import json
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from huey.api import SqliteHuey, crontab
from huey.consumer import Consumer
from huey.registry import Message
from huey.serializer import Serializer

from jobs.model.errors import StoreUnusable

POLL_S = 0.5
"""The longest an idle worker takes to hear the bell; Huey's own default backs off to 10 s."""

_FIELDS = ("id", "name", "eta", "retries", "retry_delay", "priority", "args", "kwargs", "expires", "expires_resolved")


class Handlers(Protocol):
    """Whoever answers the bell."""

    def answer(self) -> None:
        """There may be work in the store."""

    def deliver(self, message_id: int) -> None:
        """A message in the outbox may be due."""

    def tick(self) -> None:
        """A minute has passed."""


class IntegerJson(Serializer):
    """Messages as JSON, their arguments integers; anything else is refused, on both ends."""

    def __init__(self) -> None:
        """Neither compress nor sign: a message is a few bytes, and nothing in it can be executed."""
        Serializer.__init__(self)

    def _serialize(self, data: Message) -> bytes:
        fields = {name: getattr(data, name) for name in _FIELDS}
        if fields["kwargs"] or not all(type(argument) is int for argument in fields["args"] or ()):
            raise TypeError(f"a wake-up queue message carries integers only: {data.name}")
        eta = fields["eta"]
        return json.dumps(fields | {"eta": eta.isoformat() if eta is not None else None}).encode()

    def _deserialize(self, data: bytes) -> Message:
        fields = json.loads(bytes(data))
        if not all(type(argument) is int for argument in fields["args"] or ()):
            raise TypeError("a wake-up queue message carries integers only")
        if fields["eta"] is not None:
            fields["eta"] = datetime.datetime.fromisoformat(fields["eta"])
        return Message(**{name: fields[name] for name in _FIELDS})


class WakeupQueue:
    """Both ends of the bell: anyone may ring, the worker answers."""

    def __init__(self, path: Path, answers: Handlers | None = None) -> None:
        """Open the bell's file.

        Args:
            path: queue.db.
            answers: who answers; None where this process only rings.

        Raises:
            StoreUnusable: the file is damaged, or cannot be written.
        """
        self._path = path
        serializer: Serializer = IntegerJson()
        with _translated(path):
            self._huey = SqliteHuey("lq", filename=str(path), results=False, serializer=serializer, timeout=30)
        self._answer = self._huey.task(name="answer")(_call(answers, "answer"))
        self._deliver = self._huey.task(name="deliver")(_call(answers, "deliver"))
        self._huey.periodic_task(crontab(minute="*"), name="tick")(_call(answers, "tick"))

    def wake(self, *, after_s: float = 0.0) -> None:
        """Say that there is work, now or in a while."""
        with _translated(self._path):
            if after_s > 0:
                self._answer.schedule(delay=after_s)
            else:
                self._answer()

    def wake_for_delivery(self, message_id: int, *, after_s: float = 0.0) -> None:
        """Say that a message is due, now or in a while."""
        if after_s > 0:
            self._deliver.schedule(args=(message_id,), delay=after_s)
        else:
            self._deliver(message_id)

    def consumer(self, threads: int) -> Consumer:
        """Return the answering end, to be started by the worker.

        Args:
            threads: of which each may be busy for a whole night.
        """
        logging.getLogger("huey").setLevel(logging.WARNING)
        consumer: Consumer = self._huey.create_consumer(
            workers=threads,
            worker_type="thread",
            initial_delay=0.1,
            max_delay=POLL_S,
            scheduler_interval=1,
            graceful_signal="TERM",
        )
        return consumer

    def close(self) -> None:
        """Close the file."""
        self._huey.storage.close()


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreUnusable(
            f"{path}: the wake-up queue cannot be used ({error}). It holds no jobs: "
            "stop the worker, remove the file and try again"
        ) from error


def _call(answers: Handlers | None, name: str) -> Callable[..., None]:
    def called(*arguments: int) -> None:
        assert answers is not None, "this process rings; it does not answer"
        method: Callable[..., Any] = getattr(answers, name)
        method(*arguments)

    return called
