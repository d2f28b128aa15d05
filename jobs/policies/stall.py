"""The stall watch (docs/explanation/policies.md, section 5). All times are on the clock that stops during sleep."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from jobs.model.spec import StallLimits

TRAIN_FACTOR, VALIDATE_FACTOR = 6.0, 6.0
VALIDATE_LEAST_S = 180.0
INTERVALS = 20
KNOWN_INTERVALS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stall:
    """A trainer that has made no progress for longer than allowed."""

    phase: str
    silent_s: float  # awake seconds
    deadline_s: float  # awake seconds

    @property
    def text(self) -> str:
        """One line for the user."""
        return (
            f"no progress in phase {self.phase} for {self.silent_s:.0f} s while the machine was awake "
            f"(limit: {self.deadline_s:.0f} s)"
        )


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
    if phase == "answer":
        return limits.validation
    if phase in ("validate", "test"):
        if slowest_row_s is None or rows is None:
            return limits.validation
        least = min(VALIDATE_LEAST_S, limits.validation)
        return _clamp(VALIDATE_FACTOR * slowest_row_s * rows, least, limits.validation)
    if len(intervals) < KNOWN_INTERVALS:
        return limits.first_iteration
    return _clamp(TRAIN_FACTOR * max(intervals[-INTERVALS:]), limits.least, limits.most)


def stalled(phase: str, *, silent_s: float, deadline_s: float) -> Stall | None:
    """Return a stall if the time without progress exceeds the limit, both in awake seconds."""
    if silent_s <= deadline_s:
        return None
    return Stall(phase=phase, silent_s=silent_s, deadline_s=deadline_s)


def _clamp(value: float, least: float, most: float) -> float:
    return max(least, min(most, value))
