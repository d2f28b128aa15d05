"""Which job may start now, and if not, why not. Computed from the store and the machine each time, never stored.

The dispatcher, `lq status`, `lq show` and every other verb that says why a job waits ask this module. The store's claim
is the transaction behind it: it guards against a pause and another worker, and chooses nothing.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import tzinfo
from typing import TYPE_CHECKING

from jobs.model.job import Dependency, Job
from jobs.model.states import Status
from jobs.scheduling import obstacles
from jobs.scheduling.constraints import Constraints, constraints_of
from jobs.scheduling.obstacles import Obstacle, Reading, Why
from orchestrator.scheduling import device_lock
from orchestrator.scheduling.memory_admission import MemoryAdmission

if TYPE_CHECKING:
    from orchestrator.core.app import App
    from orchestrator.estimation.memory import PeakEstimates

ReadMachine = Callable[[Constraints], Reading]
"""Returns the state of the machine, as far as these constraints depend on it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
    """A job that waits for its turn, and what keeps it from training now."""

    job: Job
    constraints: Constraints
    obstacle: Obstacle | None  # None if it may start

    @property
    def may_start(self) -> bool:
        return self.obstacle is None and self.job.status is Status.QUEUED


def turns(
    app: App,
    *,
    slots: int,
    read: ReadMachine | None = None,
    now: float | None = None,
    zone: tzinfo | None = None,
    estimates: PeakEstimates | None = None,
) -> list[Turn]:
    """Return the jobs that wait for their turn, in its order, and what keeps each from training now.

    Jobs behind a job that cannot start may start, unless that job is strict.

    Args:
        slots: how many jobs train at once.
        read: reads the state of the machine; None for this machine's own sensors.
        now: unix seconds; None for the present.
        estimates: peaks that were estimated before.
    """
    if read is None:
        from workers.system.power import ConditionReader

        read = ConditionReader().read
    now = time.time() if now is None else now
    dependencies: defaultdict[int, list[Dependency]] = defaultdict(list)
    for dependency in app.store.dependencies.find():
        dependencies[dependency.job_id].append(dependency)
    is_paused = app.store.queue.state().paused_at is not None
    paused = Obstacle(why=Why.QUEUE_PAUSED, text="the queue is paused") if is_paused else None
    device = device_lock.obstacle(app.home)
    memory = MemoryAdmission(app, slots=slots, estimates=estimates)
    found: list[Turn] = []
    strict: Job | None = None  # the first strict job that cannot start
    for waiting in app.store.queue.waiting():
        job, spec = waiting.job, json.loads(waiting.spec_json)
        constraints = constraints_of(spec)
        obstacle = (
            obstacles.of_predecessors(dependencies[job.id])
            or paused
            or obstacles.of_constraints(constraints, read(constraints), now=now, zone=zone)
            or device
            or (_behind(strict) if strict is not None else None)
            or memory.obstacle(job, spec)
        )
        turn = Turn(job=job, constraints=constraints, obstacle=obstacle)
        if constraints.strict and not turn.may_start:
            strict = strict or job
        found.append(turn)
    return found


def _behind(job: Job) -> Obstacle:
    return Obstacle(why=Why.BEHIND, text=f"job {job.id} ({job.name}) comes before it, and is strict")


def opens_next(turns: Sequence[Turn]) -> float | None:
    """Return when the first obstacle ends, in unix seconds; None if no end is known."""
    ends = (turn.obstacle.until for turn in turns if turn.obstacle is not None)
    return min((end for end in ends if end is not None), default=None)


def kept_by_device(app: App) -> Job | None:
    """Return the first job that would start if the verb that uses the device ended; None if none would."""
    in_use = device_lock.obstacle(app.home)
    if in_use is None:
        return None
    ready = (turn.job for turn in turns(app, slots=1) if turn.obstacle == in_use)
    return next((job for job in ready if job.status is Status.QUEUED), None)
