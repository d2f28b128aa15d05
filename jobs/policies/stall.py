"""The stall watch (docs/explanation/policies.md, section 5). All times are on the clock that stops during sleep."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.model.spec import StallLimits

TRAIN_FACTOR, VALIDATE_FACTOR = 6.0, 6.0
VALIDATE_LEAST_S = 180.0
INTERVALS = 20
KNOWN_INTERVALS = 3


def deadline(
    phase: str,
    *,
    limits: StallLimits,
    intervals: Sequence[float],
    slowest_row_s: float | None,
    rows: int | None,
) -> float:
    """Return how long a phase can go without progress, in awake seconds.

    Args:
        intervals: seconds between reports, newest last.
        slowest_row_s: seconds per row of the slowest validation so far; None without validations.
        rows: rows of a validation; None if unknown.
    """
    if phase in ("load", "tokenize"):
        return limits.load
    if phase == "save":
        return limits.save
    if phase in ("validate", "test") and slowest_row_s is not None and rows is not None:
        least = min(VALIDATE_LEAST_S, limits.validation)
        return max(least, min(limits.validation, VALIDATE_FACTOR * slowest_row_s * rows))
    if phase in ("validate", "test", "answer", "reference"):
        return limits.validation
    if len(intervals) < KNOWN_INTERVALS:
        return limits.first_iteration
    return max(limits.least, min(limits.most, TRAIN_FACTOR * max(intervals[-INTERVALS:])))


def stalled(phase: str, *, silent_s: float, deadline_s: float) -> str | None:
    """Return why a phase has stalled, for the user; None if the time without progress is within the limit."""
    if silent_s <= deadline_s:
        return None
    return f"no progress in phase {phase} for {silent_s:.0f} s while the machine was awake (limit: {deadline_s:.0f} s)"
