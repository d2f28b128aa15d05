"""The night ahead: when each job of the queue will start and end, as far as that can be known. Pure and light.

The queue is played through event by event, by the rules that schedule it: the first job in order that may start takes a
free slot; one that may not is passed over, unless it is strict; a job whose window closes stops, and goes on when it
opens again and a slot is free. A job of unknown length holds its slot for ever, so of those behind it nothing is known.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterator, Sequence
from datetime import tzinfo

from jobs.model import time_windows
from jobs.model.time_windows import TimeWindow

FURTHEST_S = 366 * 24 * 3600.0
"""What would happen later than that from now is not looked at."""

_NEVER = float("inf")
_ROUNDING_S = 1e-3
"""Work that rounding leaves over is none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ahead:
    """A job that has not ended. Ids of `after` that are not listed have ended."""

    id: int  # any number that names it
    seconds: float | None  # of training that are left; None where that is not known
    running: bool = False  # it has a slot now
    held: bool = False  # a person must let it go on first
    not_before: float | None = None  # unix seconds
    window: TimeWindow | None = None  # hours in which it trains
    after: tuple[int, ...] = ()  # jobs that must have ended before
    strict: bool = False  # while it may not start, none behind it starts
    deadline: float | None = None  # unix seconds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placed:
    """When a job will run."""

    id: int
    start: float | None  # unix seconds; None where that is not known
    end: float | None  # unix seconds; None where that is not known
    stints: tuple[tuple[float, float | None], ...]  # from when until when it trains, in order; the last may have no end
    behind: int | None = (
        None  # where nothing is known: the job that is the reason; itself where it is held or too far off
    )
    late_s: float | None = None  # seconds by which it misses its deadline, negative where it meets it; None: not known


def timeline(jobs: Sequence[Ahead], *, now: float, slots: int = 1, zone: tzinfo | None = None) -> list[Placed]:
    """Say when each job will start and end, in the order given.

    Args:
        jobs: those that have not ended, in the order in which they are chosen.
        now: unix seconds.
        slots: how many train at once.
        zone: whose hours the windows are; None for the machine's own zone.
    """
    context = _Night(jobs, now, slots, zone)
    while context.go_on():
        pass
    return [context.placed(job) for job in jobs]


class _Night:
    """The queue while it is played through."""

    def __init__(self, jobs: Sequence[Ahead], now: float, slots: int, zone: tzinfo | None) -> None:
        self._now, self._slots, self._zone = now, slots, zone
        self._until = now + FURTHEST_S
        self._order = sorted(jobs, key=lambda job: not job.running)  # those that train already come first
        self._place = {job.id: place for place, job in enumerate(self._order)}
        self._waiting = [place for place, job in enumerate(self._order) if not job.held]
        self._missing = {job.id: {one for one in job.after if one in self._place} for job in jobs}
        self._followers: dict[int, list[int]] = {}
        for job_id, missing in self._missing.items():
            for one in missing:
                self._followers.setdefault(one, []).append(job_id)
        self._left = {job.id: job.seconds for job in jobs}
        self._training: dict[int, tuple[float, float]] = {}  # since when and until when, by id
        self._stints: dict[int, list[tuple[float, float | None]]] = {job.id: [] for job in jobs}
        self._windows: dict[TimeWindow, tuple[bool, float]] = {}  # at this moment: whether it is open, and until when

    def go_on(self) -> bool:
        """Start what may start, and go to the next moment at which anything changes; False where none comes."""
        self._start()
        moment = min(self._moments(), default=_NEVER)
        if moment > self._until:
            return False
        self._now = moment
        self._windows.clear()
        for job_id in [one for one, (_, end) in self._training.items() if end <= moment]:
            self._stop(job_id)
        return True

    def _start(self) -> None:
        taken = []
        for place in self._waiting:
            if len(self._training) >= self._slots:
                break
            job = self._order[place]
            if self._may_start(job):
                self._train(job)
                taken.append(place)
            elif job.strict:
                break
        for place in taken:
            del self._waiting[bisect.bisect_left(self._waiting, place)]

    def _may_start(self, job: Ahead) -> bool:
        return (
            not self._missing[job.id]
            and (job.not_before is None or job.not_before <= self._now)
            and (job.window is None or self._window(job.window)[0])
        )

    def _train(self, job: Ahead) -> None:
        left = self._left[job.id]
        end = _NEVER if left is None else self._now + left
        if job.window is not None and left is not None:
            end = min(end, self._window(job.window)[1])
        self._training[job.id] = (self._now, end)

    def _stop(self, job_id: int) -> None:
        """End a stint: the job is done, or its window has closed."""
        since, end = self._training.pop(job_id)
        self._stints[job_id].append((since, end))
        left = self._left[job_id]
        assert left is not None
        self._left[job_id] = left = left - (end - since)
        if left > _ROUNDING_S:
            bisect.insort(self._waiting, self._place[job_id])
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
        """Yield when something will change: a stint ends, or, where a slot is free, a job may start."""
        yield from (end for _, end in self._training.values())
        if len(self._training) >= self._slots:
            return
        for place in self._waiting:
            job = self._order[place]
            if self._missing[job.id]:
                continue
            if job.not_before is not None and job.not_before > self._now:
                yield job.not_before
            if job.window is not None and not self._window(job.window)[0]:
                yield self._window(job.window)[1]

    # --- what came of it ---

    def placed(self, job: Ahead) -> Placed:
        """Return when a job will run."""
        stints = self._stints[job.id]
        end = stints[-1][1] if stints and self._is_done(job.id) else None
        if job.id in self._training:
            since, until = self._training[job.id]
            last = until if self._lasts(job.id, until - since) else None
            stints, end = [*stints, (since, last)], last
        known = end is not None or job.id in self._training
        return Placed(
            id=job.id,
            start=stints[0][0] if stints else None,
            end=end,
            stints=tuple(stints),
            behind=None if known else self._reason(job),
            late_s=None if end is None or job.deadline is None else end - job.deadline,
        )

    def _is_done(self, job_id: int) -> bool:
        left = self._left[job_id]
        return left is not None and left <= _ROUNDING_S

    def _lasts(self, job_id: int, seconds: float) -> bool:
        """Say whether a stint of so many seconds is a job's last; it may end later than anything that was looked at."""
        left = self._left[job_id]
        return left is not None and left - seconds <= _ROUNDING_S

    def _reason(self, job: Ahead) -> int:
        """Return the job that is the reason why nothing is known of this one."""
        seen: set[int] = set()
        while job.id not in seen and not job.held:
            seen.add(job.id)
            ahead = self._what_it_waits_for(job)
            if ahead is None:
                break
            job = ahead
        return job.id

    def _what_it_waits_for(self, job: Ahead) -> Ahead | None:
        if self._missing[job.id]:
            return self._order[self._place[min(self._missing[job.id])]]
        endless = [one for one, (_, end) in self._training.items() if end == _NEVER]
        if job.id in endless:
            return None
        if len(endless) >= self._slots:
            return self._order[self._place[endless[0]]]
        return next(
            (self._order[one] for one in self._waiting if one < self._place[job.id] and self._order[one].strict), None
        )
