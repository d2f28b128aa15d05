"""The wake-up queue with a real consumer: signals arrive, and no message can run code."""

from __future__ import annotations

import json
import logging
import os
import pickle
import queue
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.huey_queue import WakeupQueue
from tests.harness import until

Signals = queue.Queue[tuple[str, object, float]]

PATIENCE_S = 30.0

DELIVER = "orchestrator.core.huey_queue.deliver"
"""Huey's name of the task."""


class Listener:
    """Records signals and their times."""

    def __init__(self) -> None:
        self.received: Signals = queue.Queue()

    def handle(self) -> None:
        self.received.put(("handle", None, time.monotonic()))

    def deliver(self, message_id: int) -> None:
        self.received.put(("deliver", message_id, time.monotonic()))

    def tick(self) -> None:
        """Not recorded: a minute may pass during a test."""

    def next(self) -> tuple[str, object]:
        name, argument, _ = self.received.get(timeout=PATIENCE_S)
        return name, argument


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """queue.db."""
    return tmp_path / "queue.db"


@contextmanager
def consuming(path: Path) -> Iterator[tuple[WakeupQueue, Listener]]:
    """Run a consumer of the queue."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    listener = Listener()
    wakeup = WakeupQueue(path, listener)
    consumer = wakeup.consumer(2)
    consumer.start()
    try:
        yield wakeup, listener
    finally:
        consumer.stop(graceful=True)
        wakeup.close()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def put(path: Path, data: bytes, *, table: str = "task") -> None:
    """Insert a message into the file without lq."""
    column, value = ("priority", 0.0) if table == "task" else ("timestamp", time.time() - 60)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"insert into {table} (queue, data, {column}) values ('lq', ?, ?)", (data, value))  # noqa: S608


def stored(path: Path, table: str = "task") -> list[bytes]:
    """Return the messages in the file, except ticks."""
    with closing(sqlite3.connect(path)) as database:
        messages = [bytes(row[0]) for row in database.execute(f"select data from {table}")]  # noqa: S608
        return [data for data in messages if b'"orchestrator.core.huey_queue.tick"' not in data]


def message(**changes: Any) -> bytes:
    """Return a message as lq writes it, with some fields changed."""
    fields: dict[str, Any] = dict.fromkeys(("eta", "priority", "expires", "expires_resolved"))
    fields |= {"id": "m", "name": DELIVER, "retries": 0, "retry_delay": 0, "args": [4], "kwargs": {}}
    return json.dumps(fields | changes).encode()


class Poison:
    """Unpickles into a command."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.victim),)


def test_signals_are_handled(path: Path) -> None:
    with consuming(path) as (wakeup, listener):
        wakeup.wake()
        assert listener.next() == ("handle", None)
        wakeup.wake_for_delivery(17)
        assert listener.next() == ("deliver", 17)
    assert stored(path) == []


def test_signal_from_another_process(path: Path) -> None:
    code = "import sys, pathlib, orchestrator.core.huey_queue as q; q.WakeupQueue(pathlib.Path(sys.argv[1])).wake()"
    with consuming(path) as (_, listener):
        subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)
        assert listener.next() == ("handle", None)


def test_signal_before_start_is_handled(path: Path) -> None:
    wakeup = WakeupQueue(path)
    wakeup.wake_for_delivery(3)
    wakeup.close()
    with consuming(path) as (_, listener):
        assert listener.next() == ("deliver", 3)


def test_delayed_signal_arrives_later(path: Path) -> None:
    with consuming(path) as (wakeup, listener):
        sent = time.monotonic()
        wakeup.wake(after_s=1.5)
        wakeup.wake_for_delivery(5, after_s=1.5)
        wakeup.wake_for_delivery(6)
        assert listener.next() == ("deliver", 6)
        later = [listener.received.get(timeout=PATIENCE_S) for _ in range(2)]
        assert {(name, argument) for name, argument, _ in later} == {("handle", None), ("deliver", 5)}
        assert all(at - sent >= 1.4 for _, _, at in later)


def test_messages_are_json_integers(path: Path) -> None:
    wakeup = WakeupQueue(path)
    wakeup.wake()
    wakeup.wake_for_delivery(12)
    wakeup.wake_for_delivery(13, after_s=3600)
    wakeup.close()
    messages = [json.loads(data) for data in stored(path)]
    assert [(fields["name"].rpartition(".")[2], list(fields["args"] or ())) for fields in messages] == [
        ("handle", []),
        ("deliver", [12]),
        ("deliver", [13]),
    ]
    assert messages[1]["name"] == DELIVER
    assert [fields["eta"] is not None for fields in messages] == [False, False, True]


@pytest.mark.parametrize("wrong", ["12", 1.5, None, True, [12], {"id": 12}])
def test_only_integers_can_be_sent(path: Path, wrong: Any) -> None:
    wakeup = WakeupQueue(path)
    for after_s in (0.0, 60.0):
        with pytest.raises(TypeError, match="integers only"):
            wakeup.wake_for_delivery(wrong, after_s=after_s)
    assert stored(path) == stored(path, "schedule") == []
    wakeup.close()


@pytest.mark.parametrize("table", ["task", "schedule"])
def test_pickle_is_refused_without_running(
    path: Path, tmp_path: Path, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    victim = tmp_path / "victim"
    data = pickle.dumps(Poison(victim))
    with consuming(path) as (wakeup, listener), caplog.at_level(logging.CRITICAL + 1, logger="huey"):
        put(path, data, table=table)
        until(lambda: stored(path, table) == [], "the message to be taken")
        wakeup.wake()
        assert listener.next() == ("handle", None)
        assert listener.received.empty()
    assert not victim.exists()
    pickle.loads(data)  # noqa: S301 shows that the pickle would have run
    assert victim.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"rubbish",
        b"[]",
        message(args=["x"]),
        message(args=[1.5]),
        message(args=[True]),
        message(args=[[1]]),
        message(name="os.system"),
        message(name=None),
        message(eta="tomorrow"),
        b'{"args": []}',
    ],
)
def test_unknown_messages_are_skipped(path: Path, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with consuming(path) as (wakeup, listener), caplog.at_level(logging.CRITICAL + 1, logger="huey"):
        put(path, data)
        wakeup.wake_for_delivery(9)
        assert listener.next() == ("deliver", 9)
        assert listener.received.empty()
    assert stored(path) == []


def test_unchanged_message_is_accepted(path: Path) -> None:
    with consuming(path) as (_, listener):
        put(path, message())
        assert listener.next() == ("deliver", 4)


def test_failed_handler_keeps_consumer(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with consuming(path) as (wakeup, listener), caplog.at_level(logging.CRITICAL + 1, logger="huey"):
        put(path, message(args=[]))  # deliver() without its argument: a TypeError in the thread
        wakeup.wake()
        assert listener.next() == ("handle", None)
