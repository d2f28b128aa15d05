"""The wake-up queue: signals that there is work, without naming it. The only module that imports huey.

Huey deletes a message before it runs it, so a signal may be lost; it may also arrive twice. The store is the source of
truth: the worker reads there what to do, and a tick every minute makes up for lost signals
(docs/explanation/architecture.md).
Messages are JSON with integers only, so that reading one cannot run code.
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

POLL_S = 0.5  # the longest time until an idle worker receives a signal; Huey's default backs off to 10 s

_FIELDS = ("id", "name", "eta", "retries", "retry_delay", "priority", "args", "kwargs", "expires", "expires_resolved")


class Handlers(Protocol):
    """Handles the signals in the worker."""

    def handle(self) -> None:
        """Start the jobs in the store that may start."""

    def deliver(self, message_id: int) -> None:
        """Deliver a message of the outbox if it is due."""

    def tick(self) -> None:
        """Do what is due every minute."""


class IntegerJson(Serializer):
    """Serializes messages as JSON with integer arguments; refuses all others, in both directions."""

    def __init__(self) -> None:
        """Neither compress nor sign: a message has a few bytes and cannot run code."""
        Serializer.__init__(self)

    def _serialize(self, data: Message) -> bytes:
        fields = {name: getattr(data, name) for name in _FIELDS}
        if fields["kwargs"] or not all(type(argument) is int for argument in fields["args"] or ()):
            raise TypeError(f"a message of the wake-up queue accepts integers only: {data.name}")
        eta = fields["eta"]
        return json.dumps(fields | {"eta": eta.isoformat() if eta is not None else None}).encode()

    def _deserialize(self, data: bytes) -> Message:
        fields = json.loads(bytes(data))
        if not all(type(argument) is int for argument in fields["args"] or ()):
            raise TypeError("a message of the wake-up queue accepts integers only")
        if fields["eta"] is not None:
            fields["eta"] = datetime.datetime.fromisoformat(fields["eta"])
        return Message(**{name: fields[name] for name in _FIELDS})


class WakeupQueue:
    """Both ends of the queue: any process sends, the worker handles."""

    def __init__(self, path: Path, handlers: Handlers | None = None) -> None:
        """Open the queue's file; a process that only sends has no handlers."""
        self._path = path
        serializer: Serializer = IntegerJson()
        with _wrapped_errors(path):
            self._huey = SqliteHuey("lq", filename=str(path), results=False, serializer=serializer, timeout=30)
        self._handle = self._huey.task(name="handle")(_task(handlers, "handle"))
        self._deliver = self._huey.task(name="deliver")(_task(handlers, "deliver"))
        self._huey.periodic_task(crontab(minute="*"), name="tick")(_task(handlers, "tick"))

    def wake(self, *, after_s: float = 0.0) -> None:
        """Signal that there may be work, now or after some seconds."""
        with _wrapped_errors(self._path):
            if after_s > 0:
                self._handle.schedule(delay=after_s)
            else:
                self._handle()

    def wake_for_delivery(self, message_id: int, *, after_s: float = 0.0) -> None:
        """Signal that a message of the outbox is due, now or after some seconds."""
        if after_s > 0:
            self._deliver.schedule(args=(message_id,), delay=after_s)
        else:
            self._deliver(message_id)

    def consumer(self, threads: int) -> Consumer:
        """Return the handling end, for the worker to start; each thread may be busy with one job for many hours."""
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
def _wrapped_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreUnusable(
            f"{path}: the wake-up queue cannot be used ({error}). It contains no jobs: "
            "stop the worker, remove the file and try again"
        ) from error


def _task(handlers: Handlers | None, name: str) -> Callable[..., None]:
    def run(*arguments: int) -> None:
        assert handlers is not None, "this process has no handlers"
        method: Callable[..., Any] = getattr(handlers, name)
        method(*arguments)

    return run
