"""The stall watch (policies.md 5): how long each phase may be silent, on the clock that stops in sleep. Pure."""

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
    """A child that should have said something by now."""

    phase: str
    silent_s: float  # awake seconds
    deadline_s: float  # awake seconds

    @property
    def text(self) -> str:
        """One line for a person."""
        return (
            f"no progress in phase {self.phase} for {self.silent_s:.0f} s while the machine was awake "
            f"(allowed: {self.deadline_s:.0f} s)"
        )


def deadline(
    phase: str,
    *,
    limits: StallLimits,
    intervals: Sequence[float],
    slowest_row_s: float | None,
    rows: int | None,
) -> float:
    """Return how long a phase may go without progress, in awake seconds.

    Args:
        phase: the child's phase.
        limits: `lq.stall`.
        intervals: seconds between the last reports, newest last; only the last `INTERVALS` count.
        slowest_row_s: seconds per row of the slowest validation so far; None where none was measured.
        rows: rows of a validation; None where unknown.
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
    """Judge a silence.

    Args:
        phase: the child's phase.
        silent_s: awake seconds since its last progress.
        deadline_s: from `deadline`.
    """
    if silent_s <= deadline_s:
        return None
    return Stall(phase=phase, silent_s=silent_s, deadline_s=deadline_s)


def _clamp(value: float, least: float, most: float) -> float:
    return max(least, min(most, value))
