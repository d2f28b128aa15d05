"""Who uses the device beside the jobs: `lq check`, `lq chat` and its like hold a lock, and no job starts meanwhile.

The lock is the kernel's (workers/process/lock.py), so it goes with its process, whatever ends that. A verb takes it
first and then looks whether a job trains; the worker has it for as long as it claims a job. So neither overlooks the
other.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any

from jobs.model.errors import NotAllowed
from jobs.model.job import Job
from jobs.model.states import Status
from jobs.scheduling import obstacles
from jobs.scheduling.obstacles import Obstacle
from workers.process.lock import Held, LockFile, holder, named_in
from workers.system import processes

if TYPE_CHECKING:
    from orchestrator.core.app import App
    from orchestrator.core.paths import Home

LOOK_S = 2.0
"""A worker looks so often whether the device is free again; whoever waits for it looks more often."""

_VERB_LOOKS_S, _JOBS_LOOK_S = 0.1, 0.5
_NAMELESS_S = 5.0
"""So long the lock may be held by nobody who says his name: the worker, while it claims a job."""

Tell = Callable[[str], None]


class Beside(Enum):
    """What a verb does where the device is in use."""

    REFUSE = "refuse"
    WAIT = "wait"  # --queue
    ANYWAY = "anyway"  # --anyway


@dataclasses.dataclass(frozen=True, kw_only=True)
class User:
    """A verb that has the device, or its next turn."""

    verb: str
    job: int | None
    pid: int
    waits: bool  # for the running jobs

    @property
    def words(self) -> str:
        """What was typed, without its options."""
        return f"lq {self.verb} {self.job}" if self.job is not None else f"lq {self.verb}"


def user(home: Home) -> User | None:
    """Return the living verb that holds the lock; None where none does."""
    content = holder(home.device_lock)
    who = named_in(content) if content is not None else None
    # whoever took the lock a moment ago still stands behind the name of the last one
    if content is None or who is None or not processes.is_alive(who):
        return None
    return _read(content, who.pid)


def _read(content: dict[str, Any], pid: int) -> User | None:
    try:
        job = int(content["job"]) if content["job"] is not None else None
        return User(verb=str(content["verb"]), job=job, pid=pid, waits=bool(content["waits"]))
    except (KeyError, TypeError, ValueError):
        return None


def obstacle(home: Home) -> Obstacle | None:
    """Return what keeps every job from starting; None where the device is free."""
    present = user(home)
    return obstacles.of_device(present.words, waits=present.waits) if present is not None else None


@contextmanager
def kept_free(home: Home) -> Iterator[bool]:
    """Keep the device from every verb for as long as the block takes; yield False where one has it."""
    try:
        lock = LockFile.take(home.device_lock)
    except Held:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def training(app: App) -> list[Job]:
    """Return the jobs of this home that train now."""
    running = app.store.jobs.running() if app.home.store.exists() else []
    return [job for job in running if job.child is None or processes.is_alive(job.child)]


@contextmanager
def used(app: App, verb: str, job_id: int | None, *, beside: Beside, tell: Tell, queues: bool = True) -> Iterator[None]:
    """Have the device for as long as the block takes.

    Args:
        app: the home.
        verb: what was typed.
        job_id: whose model is used; None where it is no job's.
        beside: what to do where a job trains, or another verb has the device.
        tell: says to the person what is waited for.
        queues: whether the verb could have been told to wait.

    Raises:
        NotAllowed: it is in use, and `beside` says to refuse.
    """
    lock = _taken(app.home, beside, tell, queues=queues)
    try:
        if lock is not None and beside is Beside.REFUSE and (jobs := training(app)):
            raise NotAllowed(_refusal(jobs, queues=queues))
        if lock is not None and beside is Beside.WAIT:
            _have_turn(app, lock, verb, job_id, tell)
        if lock is not None:
            lock.write(processes.identity(), verb=verb, job=job_id, waits=False)
        yield
    finally:
        if lock is not None:
            lock.release()


def _taken(home: Home, beside: Beside, tell: Tell, *, queues: bool) -> LockFile | None:
    """Take the lock; None where another verb has it, and both are to have the device."""
    told, since = False, time.monotonic()
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
                f"{'wait for its end with --queue, ' if queues else ''}or run beside it with --anyway"
            )
        if present is not None and not told:
            tell(f"waits for {present.words} (pid {present.pid}) to end; Ctrl-C ends the waiting")
            told = True
        if present is None and beside is not Beside.WAIT and time.monotonic() - since > _NAMELESS_S:
            raise NotAllowed(f"{home.device_lock} is held by a process that does not say who it is; try again")
        time.sleep(_VERB_LOOKS_S)


def _have_turn(app: App, lock: LockFile, verb: str, job_id: int | None, tell: Tell) -> None:
    """Return when no job trains; none starts meanwhile, because the lock is held."""
    jobs = training(app)
    if not jobs:
        return
    lock.write(processes.identity(), verb=verb, job=job_id, waits=True)
    tell(f"waits for {_named(jobs)}; no other job starts before this, and Ctrl-C gives the place back")
    while training(app):
        time.sleep(_JOBS_LOOK_S)
    tell("the device is free; begins")


def _refusal(jobs: list[Job], *, queues: bool) -> str:
    first = jobs[0].id
    wait = "--queue" if queues else f"lq wait {first}"
    are = "is training" if len(jobs) == 1 else "are training"
    return (
        f"{_named(jobs)} {are}; wait for the end with {wait}, stop it for now with lq pause {first}, "
        "or run beside it with --anyway"
    )


def _named(jobs: list[Job]) -> str:
    words = ", ".join(f"{job.id} ({job.name})" for job in jobs)
    return f"job{'s' if len(jobs) > 1 else ''} {words}"


def keeps_waiting(app: App) -> Job | None:
    """Return the first job that would start if the verb with the device ended; None where none would."""
    from orchestrator.scheduling import eligibility
    from workers.system.power import Gauge

    present = obstacle(app.home)
    if present is None or app.store.queue.state().paused_at is not None:
        return None
    found = eligibility.turns(app.store, now=time.time(), zone=None, read=Gauge().read, device=present)
    ready = (turn.job for turn in found if turn.obstacle is present and turn.job.status is Status.QUEUED)
    return next(ready, None)
