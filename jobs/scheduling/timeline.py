"""When each job of the queue will start and end. Pure and light.

The queue is simulated event by event, by the rules that schedule it: the first job in order that may start takes a free
slot; one that cannot is passed over, unless it is strict; a job whose window closes stops, and resumes when the window
opens and a slot is free. If a job's duration is unknown, start times after it are unknown too.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterator, Sequence
from datetime import tzinfo

from jobs.model import time_windows
from jobs.model.time_windows import TimeWindow

FURTHEST_S = 366 * 24 * 3600.0  # the simulation ends this long after now
_NEVER = float("inf")
_ROUNDING_S = 1e-3  # less remaining work than this is a rounding error


@dataclasses.dataclass(frozen=True, kw_only=True)
class PendingJob:
    """A job that has not ended. Ids of `after` that are not listed have ended."""

    id: int  # any number that identifies it
    seconds: float | None  # the time it has left; None if unknown
    running: bool = False  # it has a slot now
    held: bool = False  # the user must release it first
    not_before: float | None = None  # unix seconds
    window: TimeWindow | None = None  # hours of training
    after: tuple[int, ...] = ()  # jobs that must end before it starts
    strict: bool = False  # while it cannot start, no job behind it starts
    deadline: float | None = None  # unix seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobTimes:
    id: int
    start: float | None  # unix seconds; None if unknown
    end: float | None  # unix seconds; None if unknown
    stints: tuple[tuple[float, float | None], ...]  # start and end of each stretch of training; the last may be open
    behind: int | None = None  # the job that makes the times unknown: itself if it is held or too far off
    late_s: float | None = None  # seconds after its deadline, negative if it meets it; None if unknown


def timeline(jobs: Sequence[PendingJob], *, now: float, slots: int = 1, zone: tzinfo | None = None) -> list[JobTimes]:
    """Return when each job will start and end; `jobs` are those that have not ended, in the order of the queue."""
    simulation = _Simulation(jobs, now, slots, zone)
    while simulation.advance():
        pass
    return [simulation.times_of(job) for job in jobs]


class _Simulation:
    def __init__(self, jobs: Sequence[PendingJob], now: float, slots: int, zone: tzinfo | None) -> None:
        self._now, self._slots, self._zone = now, slots, zone
        self._until = now + FURTHEST_S
        self._order = sorted(jobs, key=lambda job: not job.running)  # running jobs come first
        self._position = {job.id: position for position, job in enumerate(self._order)}
        self._waiting = [position for position, job in enumerate(self._order) if not job.held]
        self._missing = {job.id: {job_id for job_id in job.after if job_id in self._position} for job in jobs}
        self._followers: dict[int, list[int]] = {}
        for job_id, missing in self._missing.items():
            for predecessor in missing:
                self._followers.setdefault(predecessor, []).append(job_id)
        self._left = {job.id: job.seconds for job in jobs}
        self._training: dict[int, tuple[float, float]] = {}  # start and end, by id
        self._stints: dict[int, list[tuple[float, float | None]]] = {job.id: [] for job in jobs}
        self._windows: dict[TimeWindow, tuple[bool, float]] = {}  # now: whether it is open, and until when

    def advance(self) -> bool:
        """Start the jobs that may start, and advance to the next change; return False if there is none."""
        self._start()
        moment = min(self._moments(), default=_NEVER)
        if moment > self._until:
            return False
        self._now = moment
        self._windows.clear()
        for job_id in [training for training, (_, end) in self._training.items() if end <= moment]:
            self._stop(job_id)
        return True

    def _start(self) -> None:
        started = []
        for position in self._waiting:
            if len(self._training) >= self._slots:
                break
            job = self._order[position]
            if self._may_start(job):
                self._train(job)
                started.append(position)
            elif job.strict:
                break
        for position in started:
            del self._waiting[bisect.bisect_left(self._waiting, position)]

    def _may_start(self, job: PendingJob) -> bool:
        return (
            not self._missing[job.id]
            and (job.not_before is None or job.not_before <= self._now)
            and (job.window is None or self._window(job.window)[0])
        )

    def _train(self, job: PendingJob) -> None:
        left = self._left[job.id]
        end = _NEVER if left is None else self._now + left
        if job.window is not None and left is not None:
            end = min(end, self._window(job.window)[1])
        self._training[job.id] = (self._now, end)

    def _stop(self, job_id: int) -> None:
        """End a stretch of training: the job is done, or its window has closed."""
        since, end = self._training.pop(job_id)
        self._stints[job_id].append((since, end))
        left = self._left[job_id]
        assert left is not None
        self._left[job_id] = left = left - (end - since)
        if left > _ROUNDING_S:
            bisect.insort(self._waiting, self._position[job_id])
            return
        for follower in self._followers.get(job_id, ()):
            self._missing[follower].discard(job_id)

    def _window(self, span: TimeWindow) -> tuple[bool, float]:
        if span not in self._windows:
            closes = time_windows.until(span, self._now, self._zone)
            changes = time_windows.opens(span, self._now, self._zone) if closes is None else closes
            self._windows[span] = (closes is not None, changes)
        return self._windows[span]

    def _moments(self) -> Iterator[float]:
        """Yield the moments of change: a stretch of training ends, or, if a slot is free, a job may start."""
        yield from (end for _, end in self._training.values())
        if len(self._training) >= self._slots:
            return
        for position in self._waiting:
            job = self._order[position]
            if self._missing[job.id]:
                continue
            if job.not_before is not None and job.not_before > self._now:
                yield job.not_before
            if job.window is not None and not self._window(job.window)[0]:
                yield self._window(job.window)[1]

    def times_of(self, job: PendingJob) -> JobTimes:
        stints = self._stints[job.id]
        end = stints[-1][1] if stints and self._is_done(job.id) else None
        if job.id in self._training:
            since, until = self._training[job.id]
            end = until if self._is_done(job.id, after_s=until - since) else None  # may end after the simulation
            stints = [*stints, (since, end)]
        known = end is not None or job.id in self._training
        return JobTimes(
            id=job.id,
            start=stints[0][0] if stints else None,
            end=end,
            stints=tuple(stints),
            behind=None if known else self._reason(job),
            late_s=None if end is None or job.deadline is None else end - job.deadline,
        )

    def _is_done(self, job_id: int, *, after_s: float = 0.0) -> bool:
        left = self._left[job_id]
        return left is not None and left - after_s <= _ROUNDING_S

    def _reason(self, job: PendingJob) -> int:
        """Return the job that makes the times of this one unknown."""
        visited: set[int] = set()
        while job.id not in visited and not job.held:
            visited.add(job.id)
            ahead = self._predecessor(job)
            if ahead is None:
                break
            job = ahead
        return job.id

    def _predecessor(self, job: PendingJob) -> PendingJob | None:
        if self._missing[job.id]:
            return self._order[self._position[min(self._missing[job.id])]]
        endless = [training for training, (_, end) in self._training.items() if end == _NEVER]
        if job.id in endless:
            return None
        if len(endless) >= self._slots:
            return self._order[self._position[endless[0]]]
        before = (self._order[position] for position in self._waiting if position < self._position[job.id])
        return next((other for other in before if other.strict), None)
