"""The testbed: one home, one model, one job file, and the result of a run without faults."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from jobs.model.errors import LqError
from jobs.model.job import Job
from jobs.model.job_dir import JobDir
from jobs.model.states import ENDED
from orchestrator.core.paths import Home
from orchestrator.store.store import Store
from orchestrator.worker import control
from tests.chaos.limited_disk import LimitedDisk
from tests.chaos.trainer_watch import TrainerWatch
from tests.harness import BESIDE_PYTHON, FIRST_EVER_S, Lq, Workshop, until
from workers.process.lock import named_in
from workers.system.processes import is_alive

SAVE_EVERY, ACCUMULATION = 7, 4
"""Not multiples of each other, so that most checkpoints are due within an update and wait for its end."""

INTERVAL = -(-SAVE_EVERY // ACCUMULATION) * ACCUMULATION
"""The largest number of iterations between two checkpoints."""

FILES = ("adapters.safetensors", "final_adapters.safetensors")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """The result and the times of a run without faults."""

    sha256: dict[str, str]
    trainer_s: float  # from submit to the trainer's end
    life_s: float  # from submit to the job's end


class Testbed:
    """The home, the jobs and the processes of the test."""

    def __init__(self, place: LimitedDisk, watch: TrainerWatch, *, iters: int) -> None:
        """Build model and data.

        Args:
            iters: iterations of each job.
        """
        self.place, self.watch, self.iters = place, watch, iters
        self.home = Home(place.home)
        self.lq = Lq(place.home)
        self._workshop = Workshop.built(place.folder)
        self._store: Store | None = None

    # --- jobs ---

    def job_file(self, name: str) -> Path:
        """Write the job file of a round."""
        return self._workshop.job_file(
            self.place.folder / f"{name}.yaml",
            iters=self.iters,
            grad_accumulation_steps=ACCUMULATION,
            save_every=SAVE_EVERY,
            steps_per_report=1,
            lq={
                "name": name,
                "memory": {"probe": False},  # lq takes a kill in the probe for a lack of memory
                "checkpoint": {"every": 0.5},
                "retry": {"max_restarts": 1000, "crash_loop": 1000},
                "notify": {"on": ["finished"]},
            },
        )

    @property
    def store(self) -> Store:
        """The store."""
        if self._store is None:
            self._store = Store.open(self.home.store)
        return self._store

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()

    def named(self, name: str) -> list[Job]:
        """Return the jobs with a name."""
        return (
            [job for job in self.store.jobs.overview(all_jobs=True) if job.name == name]
            if self.home.store.exists()
            else []
        )

    def trainer(self, job: Job) -> int | None:
        """Return the pid of a job's trainer, None if none runs."""
        return self.watch.trainer(Path(job.job_dir))

    def undisturbed(self, name: str) -> Undisturbed:
        """Run a job without faults."""
        began = time.time()
        training = self.lq.submit(self.job_file(name))
        training.wait(seconds=FIRST_EVER_S)
        job = self.store.jobs.get(training.id)
        (attempt,) = self.store.attempts.of(training.id)
        assert job.ended_at is not None
        assert attempt.ended_at is not None
        return Undisturbed(
            sha256=hashes(training.folder), trainer_s=attempt.ended_at - began, life_s=job.ended_at - began
        )

    # --- processes ---

    def worker(self) -> int | None:
        """Return the worker's pid, None if none runs."""
        present = control.running(self.home)
        return int(present["pid"]) if present is not None else None

    def ensure_worker(self) -> None:
        """Start a worker if none runs, as a user would; a full disk may prevent it."""
        if self.worker() is None:
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                self.lq("worker", "--detach")

    def kill_worker(self) -> bool:
        """Kill the worker; return False if none runs."""
        present = control.running(self.home)
        who = named_in(present) if present is not None else None
        if who is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(who.pid, signal.SIGKILL)
        until(lambda: not is_alive(who), "the worker to exit")
        return True

    @contextlib.contextmanager
    def worker_suspended(self, *, unlocked: bool) -> Iterator[None]:
        """Suspend the worker.

        Args:
            unlocked: wait until it holds no lock on a database.
        """
        pid = self.worker()
        try:
            while pid is not None:
                os.kill(pid, signal.SIGSTOP)
                if not unlocked or not any(_locked(path) for path in (self.home.store, self.home.wakeup)):
                    break
                os.kill(pid, signal.SIGCONT)
                time.sleep(0.01)
            yield
        finally:
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def run_and_kill(self, *words: str | int | Path, chance: random.Random, within_s: float) -> bool:
        """Run an lq command and kill it after a random time; return False if it ended first.

        Args:
            chance: draws the time.
            within_s: longest time before the kill.
        """
        command = subprocess.Popen(
            [BESIDE_PYTHON / "lq", *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"LQ_HOME": str(self.place.home)},
        )
        try:
            command.wait(chance.uniform(0.0, within_s))
        except subprocess.TimeoutExpired:
            command.kill()
            command.wait()
            return True
        return False

    # --- state ---

    def look(self, job_id: int) -> Job | None:
        """Return a job; None if the store cannot be read now."""
        with contextlib.suppress(LqError):
            return self.store.jobs.get(job_id)
        return None

    def has_ended(self, job_id: int) -> bool:
        """Report whether a job has ended."""
        job = self.look(job_id)
        return job is not None and job.status in ENDED

    def resume_now(self, job_id: int) -> None:
        """Resume the job, as an impatient user does; this also sends a wake-up signal."""
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.lq("resume", job_id)


def hashes(folder: JobDir) -> dict[str, str]:
    """Return the SHA-256 of the adapter's files that exist."""
    return {
        name: hashlib.sha256((folder.adapters / name).read_bytes()).hexdigest()
        for name in FILES
        if (folder.adapters / name).exists()
    }


def _locked(path: Path) -> bool:
    if not path.exists():
        return False
    with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as db:
        try:
            db.execute("BEGIN IMMEDIATE")
            db.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return True
    return False


@contextlib.contextmanager
def notification_server() -> Iterator[tuple[str, list[str]]]:
    """Run a notification service; yield its URL and the titles it receives."""
    received: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            document: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.append(str(document["title"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the name of http.server
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"json://127.0.0.1:{server.server_address[1]}/", received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
