"""A worker inside the test, with a clock, a battery and a user that the test controls.

Everything else is real: the store, the wake-up queue, the trainer in its own process.
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
from orchestrator.submission.submit import check_all, enqueue_all
from orchestrator.worker.dispatcher import Dispatcher
from tests.harness import PATIENCE_S, until
from workers.system import processes


class WallClock:
    """A clock that the test sets; it then runs like the real one."""

    def __init__(self, text: str) -> None:
        """Set the clock to a time in UTC, such as `2026-11-25 22:00`."""
        self.set(text)

    def set(self, text: str) -> None:
        """Set the clock to a time in UTC."""
        self._at = datetime.fromisoformat(text).replace(tzinfo=UTC)
        self._since = time.monotonic()

    def advance_to(self, hour: int) -> None:
        """Set the clock to the next time with this hour."""
        now = datetime.fromtimestamp(self(), tz=UTC)
        then = now.replace(hour=hour, minute=0, second=0, microsecond=0)
        self._at = then if then > now else then + timedelta(days=1)
        self._since = time.monotonic()

    def __call__(self) -> float:
        """Return unix seconds."""
        return self._at.timestamp() + time.monotonic() - self._since


class OvernightWorker:
    """A home, and a dispatcher in this process."""

    def __init__(self, path: Path, clock: WallClock, *, slots: int = 1) -> None:
        """Open the home.

        Args:
            path: $LQ_HOME.
            slots: jobs that may run at the same time.
        """
        self.app = App(Home(path))
        self.clock = clock
        self.reading = Reading()
        self.context = WorkerContext(app=self.app, owner=processes.identity(), clock=clock, read=self._read, zone=UTC)
        self.dispatcher = Dispatcher(self.context, slots=slots)
        self._threads: list[threading.Thread] = []

    def _read(self, _: Constraints) -> Reading:
        return self.reading

    def submit(self, *files: Path) -> list[Job]:
        """Queue job files, all or none."""
        return enqueue_all(self.app, check_all(self.app, files))

    def job(self, job_id: int) -> Job:
        """Return a job."""
        return self.app.store.jobs.get(job_id)

    def begin(self) -> None:
        """Run jobs in a thread until none may start."""
        thread = threading.Thread(target=self.dispatcher.handle)
        thread.start()
        self._threads.append(thread)

    def trained(self, job_id: int, iteration: int) -> None:
        """Wait until a job has reported an iteration."""

        def reported() -> bool:
            job = self.job(job_id)
            return (job.iteration >= iteration and job.status is Status.RUNNING) or job.status in ENDED

        until(reported, f"iteration {iteration} of job {job_id}")
        assert self.job(job_id).iteration >= iteration

    def finish(self) -> None:
        """Wait until no job may start any more."""
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "a job still runs"
        self._threads.clear()


@contextmanager
def overnight(path: Path, clock: WallClock, *, slots: int = 1) -> Iterator[OvernightWorker]:
    """Create a home with a worker; stop what still runs at the end."""
    path.mkdir(mode=0o700)
    (path / "settings.yaml").write_text("autostart: false\ndisk: {floor: 0}\n")
    worker = OvernightWorker(path, clock, slots=slots)
    try:
        yield worker
    finally:
        worker.context.shutting_down.set()
        worker.finish()
        worker.dispatcher.shut_down()
        worker.app.close()
