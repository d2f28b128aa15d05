"""The adversary: each kind of mishap, done to one job at one instant. Says whether it came to it, and why not."""

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

TORN = b'{"v":1,"seq":4711,"time":17'
STILL_S = 2.0
"""Longest time a trainer is held still, or a disk full."""

WAKES, WAKE_S = 3, 2.0
"""How often somebody impatient says that a job may go on after a full disk, and for how long he looks each time."""

COMMAND_S = 1.5
"""A command line is killed within this; most take about a second here."""

PATIENCE_S = 20.0
"""For a trainer to come, or for its first checkpoint; a backoff may keep it away for half of that."""

Did = str | None
"""Why it did not come to it; None where it did."""


@dataclasses.dataclass(kw_only=True)
class Marks:
    """What the checks must know of what was done to a job."""

    crashes: list[float] = dataclasses.field(default_factory=list)  # unix seconds at which its trainer was killed
    worker_killed: bool = False
    damaged: int = 0  # checkpoints
    notes: list[str] = dataclasses.field(default_factory=list)  # what looked wrong while acting


class Adversary:
    """Acts on one job of a testbed."""

    def __init__(self, testbed: Testbed, job: Job, chance: random.Random, *, impatient: bool) -> None:
        """Take a job.

        Args:
            testbed: where.
            job: whom.
            chance: draws what the plan has left open.
            impatient: whether somebody wakes the queue after a full disk.
        """
        self.testbed, self.job, self.chance, self.impatient = testbed, job, chance, impatient
        self.folder = job.dir
        self.marks = Marks()

    def act(self, kind: Kind) -> Did:
        """Do it."""
        return self._ACTS[kind](self)

    # --- deaths ---

    def _kill_trainer(self) -> Did:
        pid = self._trainer()
        return self._slay(pid) if pid is not None else _NO_TRAINER

    def _kill_worker(self) -> Did:
        self.marks.worker_killed = True
        return None if self.testbed.kill_worker() else "no worker lived"

    def _kill_both(self) -> Did:
        pid = self._trainer()
        if self.chance.random() < 0.5:
            self._kill_worker()
            if pid is not None:
                self._slay(pid)
        else:
            if pid is not None:
                self._slay(pid)
            self._kill_worker()
        return None if pid is not None else "worker only: no trainer lived"

    def _slay(self, pid: int) -> Did:
        died = time.time()
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return _NO_TRAINER
        until(lambda: not lives(pid), f"trainer {pid} to be gone")
        self.marks.crashes.append(died)
        return None

    # --- signals ---

    def _stop_trainer(self) -> Did:
        pid = self._trainer()
        if pid is None or not _signalled(pid, signal.SIGSTOP):
            return _NO_TRAINER
        time.sleep(self.chance.uniform(0.05, STILL_S))  # the mishap itself: nothing moves for a while
        _signalled(pid, signal.SIGCONT)
        return None

    def _term_trainer(self) -> Did:
        pid = self._trainer()
        return None if pid is not None and _signalled(pid, signal.SIGTERM) else _NO_TRAINER

    # --- files ---

    def _cut_checkpoint(self) -> Did:
        with self._scene() as victim:
            if victim is None:
                return _NO_CHECKPOINT
            os.truncate(victim, self.chance.randrange(victim.stat().st_size))
        return None

    def _flip_byte(self) -> Did:
        with self._scene() as victim:
            if victim is None:
                return _NO_CHECKPOINT
            content = bytearray(victim.read_bytes())
            content[self.chance.randrange(len(content))] ^= 1 << self.chance.randrange(8)
            victim.write_bytes(content)
        return None

    @contextlib.contextmanager
    def _scene(self) -> Iterator[Path | None]:
        """Hold worker and trainer still, give a file of the newest checkpoint to be damaged, then kill the trainer.

        A published adapter is the checkpoint's own file under a second name; damage to it is not lq's to undo.
        """
        self._until_written()
        with self.testbed.worker_held(unlocked=False):
            pid = self.testbed.trainer(self.job)
            if pid is not None and _signalled(pid, signal.SIGSTOP):
                until(lambda: _stands(pid), "the trainer to stand still", every=0)
            written = storage.listed(self.folder.checkpoints)
            fair = written and not hashes(self.folder) and not self.testbed.has_ended(self.job.id)
            if fair:
                self.marks.damaged += 1
            yield self.chance.choice(sorted(written[-1].path.iterdir())) if fair else None
            if pid is not None and fair:
                self._slay(pid)
            elif pid is not None:
                _signalled(pid, signal.SIGCONT)

    def _until_written(self) -> None:
        """Wait for the first checkpoint, as long as the job lives."""
        deadline = time.monotonic() + PATIENCE_S
        while not storage.listed(self.folder.checkpoints) and time.monotonic() < deadline:
            self.testbed.ensure_worker()
            if self.testbed.has_ended(self.job.id):
                return
            time.sleep(0.02)

    def _torn_line(self) -> Did:
        pid = self._trainer()
        if pid is None or not _signalled(pid, signal.SIGSTOP):
            return _NO_TRAINER
        until(lambda: _stands(pid), "the trainer to stand still", every=0)
        if not self.folder.events.exists():
            self._slay(pid)
            return "killed, but before its first event"
        with self.folder.events.open("ab") as file:
            file.write(TORN)
        return self._slay(pid)

    def _full_disk(self) -> Did:
        if not self.testbed.place.can_fill:
            return self.testbed.place.way
        self.testbed.place.full_for(self.chance.uniform(0.3, STILL_S))
        if self.impatient:
            self._have_it_go_on()
        return None

    def _have_it_go_on(self) -> None:
        """Wake the queue until a trainer is at work again: the first time lq may not even know yet that it waits."""
        for _ in range(WAKES):
            self.testbed.wake_the_queue(self.job.id)
            deadline = time.monotonic() + WAKE_S
            while time.monotonic() < deadline:
                if self.testbed.trainer(self.job) is not None or self.testbed.has_ended(self.job.id):
                    return
                time.sleep(0.05)

    # --- commands ---

    def _kill_status(self) -> Did:
        killed = self.testbed.typed_and_killed("status", chance=self.chance, within_s=COMMAND_S)
        return None if killed else _TOO_QUICK

    def _kill_retry(self) -> Did:
        if self.testbed.has_ended(self.job.id):
            return "the job had ended"
        self.testbed.ensure_worker()
        with contextlib.suppress(AssertionError):  # it may end just now
            self.testbed.lq("cancel", self.job.id)
        if self.testbed.store.jobs.get(self.job.id).status is not Status.CANCELLED:
            return "the job was quicker than its cancellation"
        killed = self.testbed.typed_and_killed("retry", self.job.id, chance=self.chance, within_s=COMMAND_S)
        if self.testbed.store.jobs.get(self.job.id).status is Status.CANCELLED:
            self.testbed.lq("retry", self.job.id)
        elif self.impatient:
            self.testbed.wake_the_queue(self.job.id)
        return None if killed else _TOO_QUICK

    def _second_worker(self) -> Did:
        self.testbed.ensure_worker()
        first = self.testbed.worker()
        answer = self.testbed.lq("worker", "--detach")
        if first is not None and self.testbed.worker() != first:
            self.marks.notes.append(f"a second worker came into being: {answer.out.strip()}")
        with contextlib.suppress(AssertionError):
            self.testbed.lq("worker", expect=5)
            return None
        self.marks.notes.append("a second worker in the foreground was not refused")
        return None

    def _trainer(self) -> int | None:
        """Return the trainer's pid; wait for one as long as the job lives, for it may be between two."""
        deadline = time.monotonic() + PATIENCE_S
        while (pid := self.testbed.trainer(self.job)) is None and time.monotonic() < deadline:
            self.testbed.ensure_worker()
            if self.testbed.has_ended(self.job.id):
                return None
            time.sleep(0.02)
        return pid

    _ACTS: dict[Kind, Callable[[Adversary], Did]] = {  # noqa: RUF012 never changed
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


_NO_TRAINER = "no trainer lived"
_NO_CHECKPOINT = "no checkpoint to damage"
_TOO_QUICK = "the command was quicker"


# --- while the job is submitted ---


def submit(
    testbed: Testbed, name: str, kinds: set[Kind], chance: random.Random
) -> tuple[Job, dict[Kind, Did], list[str]]:
    """Submit a round's job, with what goes wrong meanwhile.

    Args:
        testbed: where.
        name: of the job.
        kinds: of what goes wrong.
        chance: draws the instants.

    Returns:
        The job, what came of each kind, and what looked wrong.
    """
    file = testbed.job_file(name)
    did: dict[Kind, Did] = {}
    if Kind.KILL_SUBMIT in kinds:
        killed = testbed.typed_and_killed("submit", file, chance=chance, within_s=COMMAND_S)
        did[Kind.KILL_SUBMIT] = None if killed else _TOO_QUICK
    bells = kinds & {Kind.LOST_BELL, Kind.DOUBLED_BELL}
    if not testbed.named(name):
        with testbed.worker_held(unlocked=True) if bells else contextlib.nullcontext():
            testbed.lq("submit", file)
            did |= {kind: _meddle(testbed.home.wakeup, lose=kind is Kind.LOST_BELL) for kind in bells}
    found = testbed.named(name)
    return found[0], did, [f"{len(found)} jobs of one submit"] if len(found) > 1 else []


def _meddle(queue: Path, *, lose: bool) -> Did:
    """Lose what rings in the wake-up queue's file, or have it ring three times."""
    with contextlib.closing(sqlite3.connect(queue, timeout=10, isolation_level=None)) as db:
        if lose:
            changed = db.execute("DELETE FROM task").rowcount
        else:
            row = "SELECT queue, data, priority FROM task"
            changed = db.execute(f"INSERT INTO task (queue, data, priority) {row} UNION ALL {row}").rowcount
    return None if changed else "nothing rang"


def _signalled(pid: int, number: signal.Signals) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def _stands(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
