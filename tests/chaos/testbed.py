"""The testbed: one home, one model, one job file, and what is known of the run that nothing disturbs."""

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
from tests.chaos.lookout import DeadlineWatch
from tests.chaos.places import Place
from tests.harness import BESIDE_PYTHON, FIRST_EVER_S, Lq, Workshop, until
from workers.process.lock import named_in
from workers.system.processes import is_alive

SAVE_EVERY, ACCUMULATION = 7, 4
"""No multiple of each other, so that most checkpoints are due in the midst of an update and wait for its end."""

INTERVAL = -(-SAVE_EVERY // ACCUMULATION) * ACCUMULATION
"""Most iterations between two checkpoints."""

FILES = ("adapters.safetensors", "final_adapters.safetensors")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """What every round is held against."""

    sha256: dict[str, str]
    trainer_s: float  # from submit to the trainer's end
    life_s: float  # from submit to the job's


class Testbed:
    """Everything a round acts on."""

    def __init__(self, place: Place, lookout: DeadlineWatch, *, iters: int) -> None:
        """Build model, data, settings; no job yet.

        Args:
            place: where.
            lookout: who looks for trainers.
            iters: iterations of each job.
        """
        self.place, self.lookout, self.iters = place, lookout, iters
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
                "memory": {"probe": False},  # a -9 in the probe is taken for a lack of memory, as it should be
                "checkpoint": {"every": 0.5},
                "retry": {"max_restarts": 1000, "crash_loop": 1000},
                "notify": {"on": ["finished"]},
            },
        )

    @property
    def store(self) -> Store:
        """The store, to look at."""
        if self._store is None:
            self._store = Store.open(self.home.store)
        return self._store

    def close(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()

    def named(self, name: str) -> list[Job]:
        """Return the jobs of a name."""
        return (
            [job for job in self.store.jobs.overview(all_jobs=True) if job.name == name]
            if self.home.store.exists()
            else []
        )

    def trainer(self, job: Job) -> int | None:
        """Return the pid of a job's trainer, None where none lives."""
        return self.lookout.trainer(Path(job.job_dir))

    def undisturbed(self, name: str) -> Undisturbed:
        """Live through a round in which nothing goes wrong."""
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
        """Return the worker's pid, None where none lives."""
        present = control.running(self.home)
        return int(present["pid"]) if present is not None else None

    def ensure_worker(self) -> None:
        """Start a worker where none lives, as its user would; a full disk may prevent it for now."""
        if self.worker() is None:
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                self.lq("worker", "--detach")

    def kill_worker(self) -> bool:
        """Kill the worker with -9; False where none lives."""
        present = control.running(self.home)
        who = named_in(present) if present is not None else None
        if who is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(who.pid, signal.SIGKILL)
        until(lambda: not is_alive(who), "the worker to be gone")
        return True

    @contextlib.contextmanager
    def worker_held(self, *, unlocked: bool) -> Iterator[None]:
        """Hold the worker still.

        Args:
            unlocked: at a moment when it holds no lock on a database.
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

    def typed_and_killed(self, *words: str | int | Path, chance: random.Random, within_s: float) -> bool:
        """Type an lq command and kill it with -9 after a random while; False where it was quicker.

        Args:
            words: the command.
            chance: draws the while.
            within_s: the longest while.
        """
        typed = subprocess.Popen(
            [BESIDE_PYTHON / "lq", *map(str, words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"LQ_HOME": str(self.place.home)},
        )
        try:
            typed.wait(chance.uniform(0.0, within_s))
        except subprocess.TimeoutExpired:
            typed.kill()
            typed.wait()
            return True
        return False

    # --- looking ---

    def look(self, job_id: int) -> Job | None:
        """Return a job, None where the store cannot be read just now."""
        with contextlib.suppress(LqError):
            return self.store.jobs.get(job_id)
        return None

    def has_ended(self, job_id: int) -> bool:
        """Say whether a job has ended."""
        job = self.look(job_id)
        return job is not None and job.status in ENDED

    def wake_the_queue(self, job_id: int) -> None:
        """Do what an impatient person does: say that the job may go on now, which also rings."""
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.lq("resume", job_id)


def hashes(folder: JobDir) -> dict[str, str]:
    """Return the SHA-256 of the finished adapter's files; of those that are there."""
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
def inbox() -> Iterator[tuple[str, list[str]]]:
    """Serve a notification service on the loopback; give its URL and the titles it receives."""
    received: list[str] = []

    class Inbox(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            document: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.append(str(document["title"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 the name http.server gives it
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Inbox)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"json://127.0.0.1:{server.server_address[1]}/", received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
