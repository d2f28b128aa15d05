"""Whether a job will miss its deadline. Pure: the time left, the hours and the time are arguments."""

from __future__ import annotations

from datetime import tzinfo

from jobs.model import time_windows
from jobs.model.time_windows import TimeWindow

FEWEST_REPORTS = 6
"""An attempt's speed is trusted after this many reports; the first one includes the compiling of the step."""

MARGIN_S = 30.0
MARGIN_SHARE = 0.05
"""An estimate is a miss if it is late by more than these seconds and by more than this share of the time left."""


def late(due: float, *, now: float, left_s: float, window: TimeWindow | None, zone: tzinfo | None) -> float | None:
    """Return when a job that will miss its deadline ends, in unix seconds; None if it may meet the deadline."""
    expected = time_windows.ends_after(window, now, left_s, zone)
    if now <= due and expected - due <= max(MARGIN_S, MARGIN_SHARE * left_s):
        return None
    return expected
