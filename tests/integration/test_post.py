"""The worker's post: the digest goes before what it tells, and a service that is mute holds up no other bell."""

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
from tests.integration.loopback import Endless, Endpoint, until
from tests.unit.orchestrator.cli_homes import Home
from workers.system.processes import identity


class Worker:
    """A post with a clock that a test sets."""

    def __init__(self, home: Home, app: App) -> None:
        self.home = home
        self.now = time.time()
        self.post = OutboxWorker(WorkerContext(app=app, owner=identity(), clock=lambda: self.now))

    def settings(self, **notify: Any) -> None:
        self.home.write_settings(yaml.safe_dump({"notify": notify}))

    def write(self, event: str, *, job_id: int | None = None) -> int:
        key = f"{event}-{self.now}-{len(self.home.store.outbox.messages())}"
        new = NewMessage(job_id=job_id, event=event, key=key, title=f"lq: {event}", body="b")
        row = self.home.store.outbox.add(new, self.now)
        assert row is not None
        return row.id

    def bells(self) -> int:
        """Return how many bells are ordered for later, or not yet heard."""
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
    until(lambda: not any(thread.name.startswith("lq-") for thread in threading.enumerate()))


def test_in_the_morning_the_digest_goes_before_what_the_night_held_back(worker: Worker) -> None:
    job = worker.home.ended(Status.SUCCEEDED, Reason.COMPLETED, name="night")
    day = datetime.datetime.fromtimestamp(job.submitted_at).astimezone().date() + datetime.timedelta(days=1)
    with worker.home.store.database.writing() as db:
        ended = datetime.datetime.combine(day, datetime.time(4)).astimezone().timestamp()
        db.exec_driver_sql("UPDATE jobs SET ended_at = ? WHERE id = ?", (ended, job.id))
    with Endpoint() as phone:
        worker.settings(services=[{"url": f"json://{phone.address}/"}], quiet="23:00-07:00", digest="07:00")
        worker.now = ended
        finished = worker.write("finished", job_id=job.id)
        worker.post.deliver(finished)
        assert phone.received == []
        worker.now = ended + 3 * 3600
        worker.post.deliver(finished)
        digest = worker.home.store.outbox.last_digest()
        assert digest is not None
        worker.post.deliver(digest.id)
    assert [document["title"] for document in phone.documents] == ["lq: 1 finished"]
    (told,) = worker.home.store.outbox.get(finished).services
    assert (told.last_result, told.tries) == ("included in the digest", 0)


def test_while_a_service_does_not_answer_other_bells_are_heard_at_once(worker: Worker) -> None:
    ids = [worker.write("failed") for _ in range(3)]
    with Endless() as slow:
        worker.settings(services=[{"url": f"json://{slow.address}/"}])
        busy = threading.Thread(target=worker.post.deliver, args=(ids[0],), name="lq-test")
        busy.start()
        assert slow.asked.wait(20)
        for message_id in ids[1:]:
            worker.post.deliver(message_id)  # does not come back before the service if it waits for it
        assert busy.is_alive()
        with Endpoint() as phone:
            worker.settings(services=[{"url": f"json://{phone.address}/"}])
            slow.hang_up()
            busy.join(30)
            assert len(phone.received) == 2, "whoever was busy has delivered what was asked for meanwhile"
    assert [worker.home.store.outbox.get(one).settled for one in ids] == [None, "delivered", "delivered"]


def test_bells_heard_twice_do_not_order_ever_more_bells(worker: Worker) -> None:
    message_id = worker.write("failed")
    worker.settings(services=[{"url": "nonsense://x"}])
    for _ in range(10):
        worker.post.deliver(message_id)
    assert worker.bells() == 1


def test_a_worker_that_goes_home_leaves_the_rest_for_the_next(worker: Worker) -> None:
    message_id = worker.write("failed")
    worker.settings(services=[{"url": "nonsense://x"}])
    worker.post._context.shutting_down.set()
    worker.post.deliver(message_id)
    assert worker.home.store.outbox.get(message_id).services == ()
