"""The outbox worker: the digest comes before the messages in it, and a slow service does not block other requests."""

from __future__ import annotations

import datetime
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.model.job import NewMessage
from jobs.model.outcomes import Reason
from jobs.model.states import Status
from orchestrator.core.app import App
from orchestrator.core.context import WorkerContext
from orchestrator.core.paths import Home as Place
from orchestrator.notify.outbox_worker import OutboxWorker
from tests.harness import until
from tests.integration.loopback import Endless, Endpoint
from tests.unit.orchestrator.cli_homes import Home
from workers.system.processes import identity


class Worker:
    """An outbox worker with a clock that the test sets."""

    def __init__(self, home: Home, app: App) -> None:
        self.home = home
        self.now = time.time()
        self.outbox = OutboxWorker(WorkerContext(app=app, owner=identity(), clock=lambda: self.now))

    def settings(self, **notify: Any) -> None:
        self.home.write_settings(yaml.safe_dump({"notify": notify}))

    def write(self, event: str, *, job_id: int | None = None) -> int:
        key = f"{event}-{self.now}-{len(self.home.store.outbox.messages())}"
        new = NewMessage(job_id=job_id, event=event, key=key, title=f"lq: {event}", body="b")
        row = self.home.store.outbox.add(new, self.now)
        assert row is not None
        return row.id

    def signals(self) -> int:
        """Return the number of signals in the queue, due now or later."""
        with closing(sqlite3.connect(self.home.path / "queue.db")) as queue:
            tables = ("task", "schedule")
            return sum(int(queue.execute(f"SELECT count(*) FROM {table}").fetchone()[0]) for table in tables)  # noqa: S608


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    home = Home(tmp_path / "home")
    with App(Place(home.path)) as app:
        yield Worker(home, app)
    home.store.close()
    until(lambda: not any(thread.name.startswith("lq-") for thread in threading.enumerate()), "the threads to end")


def test_digest_replaces_held_messages(worker: Worker) -> None:
    job = worker.home.ended(Status.SUCCEEDED, Reason.COMPLETED, name="night")
    day = datetime.datetime.fromtimestamp(job.submitted_at).astimezone().date() + datetime.timedelta(days=1)
    with worker.home.store.database.writing() as db:
        ended = datetime.datetime.combine(day, datetime.time(4)).astimezone().timestamp()
        db.exec_driver_sql("UPDATE jobs SET ended_at = ? WHERE id = ?", (ended, job.id))
    with Endpoint() as phone:
        worker.settings(services=[{"url": f"json://{phone.address}/"}], quiet="23:00-07:00", digest="07:00")
        worker.now = ended
        finished = worker.write("finished", job_id=job.id)
        worker.outbox.deliver(finished)
        assert phone.received == []
        worker.now = ended + 3 * 3600
        worker.outbox.deliver(finished)
        digest = worker.home.store.outbox.last_digest()
        assert digest is not None
        worker.outbox.deliver(digest.id)
    assert [document["title"] for document in phone.documents] == ["lq: 1 finished"]
    (result,) = worker.home.store.outbox.get(finished).services
    assert (result.last_result, result.tries) == ("included in the digest", 0)


def test_slow_service_does_not_block_requests(worker: Worker) -> None:
    ids = [worker.write("failed") for _ in range(3)]
    with Endless() as slow:
        worker.settings(services=[{"url": f"json://{slow.address}/"}])
        busy = threading.Thread(target=worker.outbox.deliver, args=(ids[0],), name="lq-test")
        busy.start()
        assert slow.asked.wait(20)
        for message_id in ids[1:]:
            worker.outbox.deliver(message_id)  # returns although the service does not answer
        assert busy.is_alive()
        with Endpoint() as phone:
            worker.settings(services=[{"url": f"json://{phone.address}/"}])
            slow.hang_up()
            busy.join(30)
            assert len(phone.received) == 2, "the busy thread delivers the messages requested meanwhile"
    assert [worker.home.store.outbox.get(message_id).settled for message_id in ids] == [None, "delivered", "delivered"]


def test_repeated_requests_schedule_one_signal(worker: Worker) -> None:
    message_id = worker.write("failed")
    worker.settings(services=[{"url": "nonsense://x"}])
    for _ in range(10):
        worker.outbox.deliver(message_id)
    assert worker.signals() == 1


def test_shutdown_leaves_messages_open(worker: Worker) -> None:
    message_id = worker.write("failed")
    worker.settings(services=[{"url": "nonsense://x"}])
    worker.outbox._context.shutting_down.set()
    worker.outbox.deliver(message_id)
    assert worker.home.store.outbox.get(message_id).services == ()
