"""Whether a job will miss its deadline. Pure: the time left, the hours and the time are arguments."""

from __future__ import annotations

import dataclasses
from datetime import tzinfo

from jobs.model import time_windows
from jobs.model.time_windows import TimeWindow

FEWEST_REPORTS = 6
"""An attempt's speed is trusted after this many reports; the first one includes the compiling of the step."""

MARGIN_S = 30.0
MARGIN_SHARE = 0.05
"""An estimate is a miss if it is late by more than these seconds and by more than this share of the time left."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Late:
    """A deadline that will be missed."""

    due: float  # unix seconds
    expected: float  # when the job will be done, in unix seconds


def late(due: float, *, now: float, left_s: float, window: TimeWindow | None, zone: tzinfo | None) -> Late | None:
    """Return whether a job will miss its deadline; None if it may still meet it.

    Args:
        due: unix seconds.
        now: unix seconds.
        left_s: the time the run has left, in seconds.
        window: hours of training; None for all.
        zone: of the window; None for the machine's own zone.
    """
    expected = time_windows.ends_after(window, now, left_s, zone)
    if now <= due and expected - due <= max(MARGIN_S, MARGIN_SHARE * left_s):
        return None
    return Late(due=due, expected=expected)
