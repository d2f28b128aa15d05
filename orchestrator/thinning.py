"""Once a day: lets the store forget most points of long runs that ended long ago. events.jsonl keeps every one."""

from __future__ import annotations

import logging
from pathlib import Path

from jobs import thinning
from jobs.model.job import Job
from orchestrator.store.store import Store
from workers.events import log as event_log
from workers.files.job_dir import JobDir

DAY_S = 86_400.0

log = logging.getLogger("lq.thinning")


class Thinner:
    """One for each worker; thins one job a tick, so that nobody waits for it."""

    def __init__(self) -> None:
        """Begin with a look at the first tick."""
        self._looked_at: float | None = None
        self._left: list[int] = []  # jobs to thin

    def tick(self, store: Store, now: float) -> None:
        """Thin the next job, if there is one.

        Args:
            store: where they are.
            now: unix seconds.
        """
        if self._looked_at is None or abs(now - self._looked_at) >= DAY_S:
            self._looked_at = now
            ended_before = now - thinning.AFTER_S
            self._left = store.thinnable(ended_before=ended_before, more_than=thinning.FEWEST)
        if self._left:
            thin(store, store.job(self._left.pop(0)))


def thin(store: Store, job: Job) -> int:
    """Let the points of a job go that nobody misses; return how many went.

    Args:
        store: where they are.
        job: it succeeded. Where its events.jsonl is gone nothing goes.
    """
    events = JobDir(Path(job.job_dir)).events
    if not (events.exists() or event_log.packed(events).exists()):
        return 0
    found = store.every_point(job.id)
    points = [point for _, _, point in found]
    stay = thinning.kept(points, led_on=[leads for _, leads, _ in found], marks=_marks(store, job.id))
    gone = store.thin(job.id, [found[place][0] for place in stay])
    log.info("job %d: %d of %d progress points stay in the store; its log has all", job.id, len(stay), len(found))
    return gone


def _marks(store: Store, job_id: int) -> set[int]:
    """Return the iterations at which something happened."""
    kinds = ("validation", "test", "snapshot")
    marks = {one.iteration for kind in kinds for one in store.validations(job_id, kind=kind, superseded=True)}
    for attempt in store.attempts(job_id):
        marks |= {place for place in (attempt.first_iteration, attempt.last_iteration) if place is not None}
    for incident in store.incidents(job_id):
        seen = (incident.evidence.get("iteration"), incident.evidence.get("first_flag"))
        marks |= {place for place in seen if isinstance(place, int)}
    return marks
