"""The lock of the device: `lq check`, `lq chat` and the like hold it, and no job starts meanwhile.

The kernel releases the lock when its process ends (workers/process/lock.py). A verb takes it first and then looks for a
training job; the worker holds it while it claims a job. So neither overlooks the other.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import Enum
from typing import TYPE_CHECKING

from jobs.model.errors import NotAllowed
from jobs.model.job import Job
from jobs.scheduling import obstacles
from jobs.scheduling.obstacles import Obstacle
from workers.process.lock import Held, LockFile, running_holder
from workers.system import processes

if TYPE_CHECKING:
    from orchestrator.core.app import App
    from orchestrator.core.paths import Home

LOOK_S = 2.0  # the worker looks this often whether the device is free; a verb that waits for it looks more often
_VERB_LOOKS_S, _JOBS_LOOK_S = 0.1, 0.5
_NAMELESS_S = 5.0  # the lock may be held this long without a name in it: by the worker, while it claims a job

Tell = Callable[[str], None]


class Beside(Enum):
    """What a verb does if the device is in use."""

    REFUSE = "refuse"
    WAIT = "wait"  # --queue
    ANYWAY = "anyway"  # --anyway


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceUser:
    """A verb that uses the device, or waits for it."""

    verb: str
    job: int | None
    pid: int
    waits: bool  # for the running jobs

    @property
    def words(self) -> str:
        return f"lq {self.verb} {self.job}" if self.job is not None else f"lq {self.verb}"


def user(home: Home) -> DeviceUser | None:
    """Return the running verb that holds the lock; None if none does."""
    named = running_holder(home.device_lock)
    if named is None or "verb" not in named[1]:
        return None
    who, content = named
    return DeviceUser(verb=content["verb"], job=content["job"], pid=who.pid, waits=content["waits"])


def obstacle(home: Home) -> Obstacle | None:
    """Return what keeps every job from starting; None if the device is free."""
    present = user(home)
    return obstacles.of_device(present.words, waits=present.waits) if present is not None else None


@contextmanager
def kept_free(home: Home) -> Iterator[bool]:
    """Keep every verb from the device within the block; yield False if a verb has it."""
    with ExitStack() as stack:
        try:
            stack.callback(LockFile.take(home.device_lock).release)
        except Held:
            yield False
        else:
            yield True


def training(app: App) -> list[Job]:
    """Return the jobs of this home that train now."""
    running = app.store.jobs.running() if app.home.store.exists() else []
    return [job for job in running if job.child is None or processes.is_alive(job.child)]


@contextmanager
def used(app: App, verb: str, job_id: int | None, *, beside: Beside, tell: Tell, queues: bool = True) -> Iterator[None]:
    """Hold the device within the block.

    Args:
        beside: what to do if a job trains, or another verb has the device.
        tell: prints what the verb waits for.
        queues: whether the verb has the option --queue.

    Raises:
        NotAllowed: the device is in use, and `beside` is REFUSE.
    """
    lock = _taken(app.home, beside, tell, queues=queues)
    try:
        if lock is not None:
            jobs = training(app) if beside is not Beside.ANYWAY else []
            if jobs and beside is Beside.REFUSE:
                raise NotAllowed(_refusal(jobs, queues=queues))
            if jobs:  # no other job starts meanwhile, because this process holds the lock
                lock.write(processes.identity(), verb=verb, job=job_id, waits=True)
                tell(f"waits for {_named(jobs)}; no other job starts before this; Ctrl-C ends the waiting")
                while training(app):
                    time.sleep(_JOBS_LOOK_S)
                tell("the device is free; starting")
            lock.write(processes.identity(), verb=verb, job=job_id, waits=False)
        yield
    finally:
        if lock is not None:
            lock.release()


def _taken(home: Home, beside: Beside, tell: Tell, *, queues: bool) -> LockFile | None:
    """Take the lock; None if another verb has it, and both are to use the device."""
    notified, since = False, time.monotonic()
    while True:
        try:
            return LockFile.take(home.device_lock)
        except Held:
            present = user(home)
        if present is not None and beside is Beside.ANYWAY:
            return None
        if present is not None and beside is Beside.REFUSE:
            raise NotAllowed(
                f"the device is used by {present.words} (pid {present.pid}); end that, "
                f"{'wait for its end with --queue, ' if queues else ''}or share it with --anyway"
            )
        if present is not None and not notified:
            tell(f"waits for {present.words} (pid {present.pid}) to end; Ctrl-C ends the waiting")
            notified = True
        if present is None and beside is not Beside.WAIT and time.monotonic() - since > _NAMELESS_S:
            raise NotAllowed(f"{home.device_lock} is held by a process without a name in it; try again")
        time.sleep(_VERB_LOOKS_S)


def _refusal(jobs: list[Job], *, queues: bool) -> str:
    first = jobs[0].id
    wait = "--queue" if queues else f"lq wait {first}"
    return (
        f"{_named(jobs)} {'is' if len(jobs) == 1 else 'are'} training; wait for the end with {wait}, "
        f"stop it for now with lq pause {first}, or share it with --anyway"
    )


def _named(jobs: list[Job]) -> str:
    names = ", ".join(f"{job.id} ({job.name})" for job in jobs)
    return f"job{'s' if len(jobs) > 1 else ''} {names}"
