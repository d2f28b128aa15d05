"""A worker's night inside the test, so that the hours, the battery and the user of the machine are the test's.

Everything else is real: the store, the wake-up queue's file, the trainer in its own process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from jobs.model.job import Job
from jobs.model.states import ENDED, Status
from jobs.scheduling.constraints import Constraints
from jobs.scheduling.obstacles import Reading
from orchestrator.core.app import App
from orchestrator.core.context import WorkerContext
from orchestrator.core.paths import Home
from orchestrator.submission.submit import check_all, enqueue
from orchestrator.worker.dispatcher import Dispatcher
from tests.harness import PATIENCE_S, until
from workers.system import processes


class Hours:
    """A wall clock that is set; between two settings it goes on as the real one does."""

    def __init__(self, text: str) -> None:
        """Begin on a day.

        Args:
            text: such as `2026-11-25 22:00`, in UTC.
        """
        self.set(text)

    def set(self, text: str) -> None:
        """Set it to a day and an hour, in UTC."""
        self._at = datetime.fromisoformat(text).replace(tzinfo=UTC)
        self._since = time.monotonic()

    def turn_to(self, hour: int) -> None:
        """Move it on to the next time that it is this hour."""
        now = datetime.fromtimestamp(self(), tz=UTC)
        then = now.replace(hour=hour, minute=0, second=0, microsecond=0)
        self._at = then if then > now else then + timedelta(days=1)
        self._since = time.monotonic()

    def __call__(self) -> float:
        """Return unix seconds."""
        return self._at.timestamp() + time.monotonic() - self._since


class Inside:
    """A home and its worker's shift, in this process."""

    def __init__(self, path: Path, hours: Hours, *, slots: int = 1) -> None:
        """Open it.

        Args:
            path: $LQ_HOME.
            hours: the wall clock.
            slots: jobs at a time.
        """
        self.app = App(Home(path))
        self.hours = hours
        self.reading = Reading()
        self.context = WorkerContext(app=self.app, owner=processes.identity(), clock=hours, read=self._read, zone=UTC)
        self.shift = Dispatcher(self.context, slots=slots)
        self._threads: list[threading.Thread] = []

    def _read(self, _: Constraints) -> Reading:
        return self.reading

    def submit(self, *files: Path) -> list[Job]:
        """Queue job files, all or none."""
        return [enqueue(self.app, one) for one in check_all(self.app, files)]

    def job(self, job_id: int) -> Job:
        """Return a job as it stands."""
        return self.app.store.jobs.get(job_id)

    def begin(self) -> None:
        """Ring: the shift looks after jobs in a thread of its own until none may run."""
        thread = threading.Thread(target=self.shift.answer)
        thread.start()
        self._threads.append(thread)

    def trained(self, job_id: int, iteration: int) -> None:
        """Wait until a job has told of an iteration."""

        def there() -> bool:
            job = self.job(job_id)
            return (job.iteration >= iteration and job.status is Status.RUNNING) or job.status in ENDED

        until(there, f"iteration {iteration} of job {job_id}")
        assert self.job(job_id).iteration >= iteration

    def rest(self) -> None:
        """Wait until the shift has nothing left that may run."""
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "the shift goes on"
        self._threads.clear()


@contextmanager
def inside(path: Path, hours: Hours, *, slots: int = 1) -> Iterator[Inside]:
    """Give a home and its worker's shift; what still runs at the end is sent home."""
    path.mkdir(mode=0o700)
    (path / "settings.yaml").write_text("autostart: false\ndisk: {floor: 0}\n")
    made = Inside(path, hours, slots=slots)
    try:
        yield made
    finally:
        made.context.shutting_down.set()
        made.rest()
        made.shift.shut_down()
        made.app.close()
