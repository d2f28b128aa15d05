"""Whether a job will miss its deadline at the pace it has. Pure: paces, hours and the time are arguments."""

from __future__ import annotations

import dataclasses
from datetime import tzinfo

from jobs.model import time_windows
from jobs.model.time_windows import TimeWindow

FEWEST_REPORTS = 5
"""A pace is known after so many reports beyond the first, which holds the compiling of the step."""

MARGIN_S = 30.0
MARGIN_SHARE = 0.05
"""A forecast counts as a miss beyond so many seconds, or so much of the time that is left: speeds vary."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Late:
    """A deadline that will be missed."""

    due: float  # unix seconds
    expected: float  # when it will be done, in unix seconds


class Pace:
    """How fast an attempt comes on, validations and checkpoints included; a fold over its reports."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._first: tuple[int, float] | None = None  # iteration and awake clock of the first report
        self._last: tuple[int, float] | None = None
        self._reports = 0

    def take(self, iteration: int, awake: float) -> None:
        """Fold in a report.

        Args:
            iteration: completed iterations.
            awake: of the report, in seconds on the clock that stops in sleep.
        """
        self._first = self._first or (iteration, awake)
        self._last = (iteration, awake)
        self._reports += 1

    @property
    def seconds(self) -> float | None:
        """Seconds for an iteration; None while too little is known."""
        if self._reports <= FEWEST_REPORTS or self._first is None or self._last is None:
            return None
        iterations, seconds = self._last[0] - self._first[0], self._last[1] - self._first[1]
        return seconds / iterations if iterations > 0 and seconds > 0 else None


def late(due: float, *, now: float, left_s: float, window: TimeWindow | None, zone: tzinfo | None) -> Late | None:
    """Say whether a job will miss its deadline; None where it may still be met.

    Args:
        due: unix seconds.
        now: unix seconds.
        left_s: seconds of training that are left.
        window: hours in which it trains; None for all.
        zone: whose hours; None for the machine's own zone.
    """
    expected = time_windows.ends_after(window, now, left_s, zone)
    if now <= due and expected - due <= max(MARGIN_S, MARGIN_SHARE * left_s):
        return None
    return Late(due=due, expected=expected)
