"""Which job may run now, and if not, why not. Computed from the store and the machine each time, never stored."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import tzinfo
from typing import TYPE_CHECKING

from jobs.model.job import Dependency, Job
from jobs.model.states import Status
from jobs.scheduling import obstacles
from jobs.scheduling.constraints import Constraints, constraints_of
from jobs.scheduling.obstacles import Obstacle, Reading, Why

if TYPE_CHECKING:
    from orchestrator.store.queue import WaitingJob
    from orchestrator.store.store import Store

Read = Callable[[Constraints], Reading]
"""Returns what the machine says of itself, as far as these terms ask."""

MemoryAdmission = Callable[["WaitingJob"], Obstacle | None]
"""Says whether a job fits beside those that run."""


def anything_fits(_: WaitingJob) -> Obstacle | None:
    """Ask nothing of memory: one job at a time has all of it."""
    return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
    """A job of the line, and what keeps it from training now."""

    job: Job
    constraints: Constraints
    obstacle: Obstacle | None  # None where it may start

    @property
    def may_start(self) -> bool:
        """Whether it may start now."""
        return self.obstacle is None and self.job.status is Status.QUEUED


def turns(
    store: Store,
    *,
    now: float,
    zone: tzinfo | None,
    read: Read,
    room: MemoryAdmission = anything_fits,
    device: Obstacle | None = None,
) -> list[Turn]:
    """Return the jobs that wait for their turn, in its order, and what keeps each from training now.

    A job that may not start keeps none behind it from starting, unless it is strict.

    Args:
        store: the truth.
        now: unix seconds.
        zone: whose hours windows are; None for the machine's own zone.
        read: asks the machine.
        room: asks whether a job fits beside those that run.
        device: what keeps every job from the device (orchestrator/scheduling/device_lock.py).
    """
    dependencies = _by_job(store.dependencies.find())
    return list(_turns(store.queue.waiting(), dependencies, now=now, zone=zone, read=read, room=room, device=device))


def _turns(
    line: Sequence[WaitingJob],
    dependencies: dict[int, list[Dependency]],
    *,
    now: float,
    zone: tzinfo | None,
    read: Read,
    room: MemoryAdmission,
    device: Obstacle | None,
) -> Iterator[Turn]:
    strict: Job | None = None  # the first one that may not start
    for waiting in line:
        job, constraints = waiting.job, constraints_of(json.loads(waiting.spec_json))
        obstacle = (
            obstacles.of_predecessors(dependencies.get(job.id, ()))
            or obstacles.of_constraints(constraints, read(constraints), now=now, zone=zone)
            or device
            or (_behind(strict) if strict is not None else None)
            or room(waiting)
        )
        turn = Turn(job=job, constraints=constraints, obstacle=obstacle)
        if constraints.strict and not turn.may_start:
            strict = strict or job
        yield turn


def _behind(job: Job) -> Obstacle:
    return Obstacle(why=Why.BEHIND, text=f"job {job.id} ({job.name}) comes before it, and is strict")


def _by_job(dependencies: Sequence[Dependency]) -> dict[int, list[Dependency]]:
    found: dict[int, list[Dependency]] = defaultdict(list)
    for one in dependencies:
        found[one.job_id].append(one)
    return found


def opens_next(found: Sequence[Turn]) -> float | None:
    """Return when the first obstacle goes that is known to go, in unix seconds; None where none is."""
    return min(
        (one.obstacle.until for one in found if one.obstacle is not None and one.obstacle.until is not None),
        default=None,
    )
