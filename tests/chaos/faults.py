"""Injects each kind of fault into one job, and returns why a fault was skipped."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from jobs.model.job import Job
from jobs.model.states import Status
from tests.chaos.schedule import Kind
from tests.chaos.testbed import Testbed, hashes
from tests.harness import lives, until
from workers.checkpoints import storage

TORN = b'{"v":2,"seq":4711,"time":17'
STILL_S = 2.0
"""Longest suspension of a trainer, and longest time with a full disk."""

WAKES, WAKE_S = 3, 2.0
"""How often an impatient user resumes a job after a full disk, and how long the test then waits for a trainer."""

COMMAND_S = 1.5
"""Longest time after which a command is killed; most commands take about a second."""

PATIENCE_S = 20.0
"""Time limit for a trainer to start or to write its first checkpoint; a backoff may take half of it."""

Skipped = str | None
"""Why a fault was skipped; None if it was injected."""


@dataclasses.dataclass(kw_only=True)
class Injected:
    """The injected faults, as far as the checks need them."""

    crashes: list[float] = dataclasses.field(default_factory=list)  # unix seconds at which its trainer was killed
    worker_killed: bool = False
    damaged: int = 0  # checkpoints
    notes: list[str] = dataclasses.field(default_factory=list)  # errors noticed during the injection


class FaultInjector:
    """Injects faults into one job of a testbed."""

    def __init__(self, testbed: Testbed, job: Job, chance: random.Random, *, impatient: bool) -> None:
        """Take a job.

        Args:
            chance: draws what the plan leaves open.
            impatient: whether a user resumes the job after a full disk.
        """
        self.testbed, self.job, self.chance, self.impatient = testbed, job, chance, impatient
        self.folder = job.dir
        self.injected = Injected()

    def inject(self, kind: Kind) -> Skipped:
        """Inject a fault."""
        return self._INJECTORS[kind](self)

    # --- kills ---

    def _kill_trainer(self) -> Skipped:
        pid = self._trainer()
        return self._kill(pid) if pid is not None else _NO_TRAINER

    def _kill_worker(self) -> Skipped:
        self.injected.worker_killed = True
        return None if self.testbed.kill_worker() else "no worker ran"

    def _kill_both(self) -> Skipped:
        pid = self._trainer()
        if self.chance.random() < 0.5:
            self._kill_worker()
            if pid is not None:
                self._kill(pid)
        else:
            if pid is not None:
                self._kill(pid)
            self._kill_worker()
        return None if pid is not None else "worker only: no trainer ran"

    def _kill(self, pid: int) -> Skipped:
        killed_at = time.time()
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return _NO_TRAINER
        until(lambda: not lives(pid), f"trainer {pid} to exit")
        self.injected.crashes.append(killed_at)
        return None

    # --- signals ---

    def _stop_trainer(self) -> Skipped:
        pid = self._trainer()
        if pid is None or not _signalled(pid, signal.SIGSTOP):
            return _NO_TRAINER
        time.sleep(self.chance.uniform(0.05, STILL_S))  # the fault itself
        _signalled(pid, signal.SIGCONT)
        return None

    def _term_trainer(self) -> Skipped:
        pid = self._trainer()
        return None if pid is not None and _signalled(pid, signal.SIGTERM) else _NO_TRAINER

    # --- files ---

    def _cut_checkpoint(self) -> Skipped:
        with self._checkpoint_file() as victim:
            if victim is None:
                return _NO_CHECKPOINT
            os.truncate(victim, self.chance.randrange(victim.stat().st_size))
        return None

    def _flip_byte(self) -> Skipped:
        with self._checkpoint_file() as victim:
            if victim is None:
                return _NO_CHECKPOINT
            content = bytearray(victim.read_bytes())
            content[self.chance.randrange(len(content))] ^= 1 << self.chance.randrange(8)
            victim.write_bytes(content)
        return None

    @contextlib.contextmanager
    def _checkpoint_file(self) -> Iterator[Path | None]:
        """Suspend worker and trainer, yield a file of the newest checkpoint to damage, then kill the trainer.

        Not after the publication: the published adapter is a hard link to the same file.
        """
        self._until_written()
        with self.testbed.worker_suspended(unlocked=False):
            pid = self.testbed.trainer(self.job)
            if pid is not None and _signalled(pid, signal.SIGSTOP):
                until(lambda: _is_stopped(pid), "the trainer to be suspended", every=0)
            written = storage.listed(self.folder.checkpoints)
            allowed = written and not hashes(self.folder) and not self.testbed.has_ended(self.job.id)
            if allowed:
                self.injected.damaged += 1
            yield self.chance.choice(sorted(written[-1].path.iterdir())) if allowed else None
            if pid is not None and allowed:
                self._kill(pid)
            elif pid is not None:
                _signalled(pid, signal.SIGCONT)

    def _until_written(self) -> None:
        """Wait for the first checkpoint, until the job ends."""
        deadline = time.monotonic() + PATIENCE_S
        while not storage.listed(self.folder.checkpoints) and time.monotonic() < deadline:
            self.testbed.ensure_worker()
            if self.testbed.has_ended(self.job.id):
                return
            time.sleep(0.02)

    def _torn_line(self) -> Skipped:
        pid = self._trainer()
        if pid is None or not _signalled(pid, signal.SIGSTOP):
            return _NO_TRAINER
        until(lambda: _is_stopped(pid), "the trainer to be suspended", every=0)
        if not self.folder.events.exists():
            self._kill(pid)
            return "killed, but before its first event"
        with self.folder.events.open("ab") as file:
            file.write(TORN)
        return self._kill(pid)

    def _full_disk(self) -> Skipped:
        if not self.testbed.place.can_fill:
            return self.testbed.place.method
        self.testbed.place.full_for(self.chance.uniform(0.3, STILL_S))
        if self.impatient:
            self._resume()
        return None

    def _resume(self) -> None:
        """Resume the job until a trainer runs; at first lq may still count it as running."""
        for _ in range(WAKES):
            self.testbed.resume_now(self.job.id)
            deadline = time.monotonic() + WAKE_S
            while time.monotonic() < deadline:
                if self.testbed.trainer(self.job) is not None or self.testbed.has_ended(self.job.id):
                    return
                time.sleep(0.05)

    # --- commands ---

    def _kill_status(self) -> Skipped:
        killed = self.testbed.run_and_kill("status", chance=self.chance, within_s=COMMAND_S)
        return None if killed else _TOO_FAST

    def _kill_retry(self) -> Skipped:
        if self.testbed.has_ended(self.job.id):
            return "the job had ended"
        self.testbed.ensure_worker()
        with contextlib.suppress(AssertionError):  # the job may end now
            self.testbed.lq("cancel", self.job.id)
        if self.testbed.store.jobs.get(self.job.id).status is not Status.CANCELLED:
            return "the job ended before its cancellation"
        killed = self.testbed.run_and_kill("retry", self.job.id, chance=self.chance, within_s=COMMAND_S)
        if self.testbed.store.jobs.get(self.job.id).status is Status.CANCELLED:
            self.testbed.lq("retry", self.job.id)
        elif self.impatient:
            self.testbed.resume_now(self.job.id)
        return None if killed else _TOO_FAST

    def _second_worker(self) -> Skipped:
        self.testbed.ensure_worker()
        first = self.testbed.worker()
        answer = self.testbed.lq("worker", "--detach")
        if first is not None and self.testbed.worker() != first:
            self.injected.notes.append(f"a second worker started: {answer.out.strip()}")
        with contextlib.suppress(AssertionError):
            self.testbed.lq("worker", expect=5)
            return None
        self.injected.notes.append("a second worker in the foreground was not refused")
        return None

    def _trainer(self) -> int | None:
        """Return the trainer's pid; wait for a trainer until the job ends, because it may be between two attempts."""
        deadline = time.monotonic() + PATIENCE_S
        while (pid := self.testbed.trainer(self.job)) is None and time.monotonic() < deadline:
            self.testbed.ensure_worker()
            if self.testbed.has_ended(self.job.id):
                return None
            time.sleep(0.02)
        return pid

    _INJECTORS: dict[Kind, Callable[[FaultInjector], Skipped]] = {  # noqa: RUF012 constant
        Kind.KILL_TRAINER: _kill_trainer,
        Kind.KILL_WORKER: _kill_worker,
        Kind.KILL_BOTH: _kill_both,
        Kind.KILL_STATUS: _kill_status,
        Kind.KILL_RETRY: _kill_retry,
        Kind.STOP_TRAINER: _stop_trainer,
        Kind.TERM_TRAINER: _term_trainer,
        Kind.FULL_DISK: _full_disk,
        Kind.CUT_CHECKPOINT: _cut_checkpoint,
        Kind.FLIP_BYTE: _flip_byte,
        Kind.TORN_LINE: _torn_line,
        Kind.SECOND_WORKER: _second_worker,
    }


_NO_TRAINER = "no trainer ran"
_NO_CHECKPOINT = "no checkpoint to damage"
_TOO_FAST = "the command ended first"


# --- while the job is submitted ---


def submit(
    testbed: Testbed, name: str, kinds: set[Kind], chance: random.Random
) -> tuple[Job, dict[Kind, Skipped], list[str]]:
    """Submit a round's job, with the faults of this phase.

    Args:
        chance: draws the times.

    Returns:
        The job, why each fault was skipped, and errors.
    """
    file = testbed.job_file(name)
    skipped: dict[Kind, Skipped] = {}
    if Kind.KILL_SUBMIT in kinds:
        killed = testbed.run_and_kill("submit", file, chance=chance, within_s=COMMAND_S)
        skipped[Kind.KILL_SUBMIT] = None if killed else _TOO_FAST
    wakeups = kinds & {Kind.LOST_WAKEUP, Kind.DOUBLED_WAKEUP}
    if not testbed.named(name):
        with testbed.worker_suspended(unlocked=True) if wakeups else contextlib.nullcontext():
            testbed.lq("submit", file)
            skipped |= {kind: _change_signals(testbed.home.wakeup, lose=kind is Kind.LOST_WAKEUP) for kind in wakeups}
    jobs = testbed.named(name)
    return jobs[0], skipped, [f"{len(jobs)} jobs of one submit"] if len(jobs) > 1 else []


def _change_signals(queue: Path, *, lose: bool) -> Skipped:
    """Delete the signals in the wake-up queue's file, or triple them."""
    with contextlib.closing(sqlite3.connect(queue, timeout=10, isolation_level=None)) as db:
        if lose:
            changed = db.execute("DELETE FROM task").rowcount
        else:
            row = "SELECT queue, data, priority FROM task"
            changed = db.execute(f"INSERT INTO task (queue, data, priority) {row} UNION ALL {row}").rowcount
    return None if changed else "no signal"


def _signalled(pid: int, number: signal.Signals) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def _is_stopped(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
