"""Backoff and the crash-loop limit (docs/explanation/policies.md, section 3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

FIRST_DELAY_S = 10.0
LONGEST_DELAY_S = 600.0
MAX_DOUBLINGS = 16  # beyond the longest delay, and no overflow
NEW_PROGRESS_ITERATIONS = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crash:
    """An attempt that crashed."""

    gained: int  # iterations beyond every earlier attempt
    reason: str  # a Reason code


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backoff:
    """Whether a crashed job is restarted, and after which delay."""

    consecutive_crashes: int  # since the last new progress, including this one
    consecutive_same_reason: int  # of them, the last ones with the same reason
    may_retry: bool
    looping: bool  # no restart, because restarts bring no progress
    delay_s: float


def new_progress(iters: int) -> int:
    """Return how many new iterations are new progress in a run of `iters`: 200, or a tenth of a shorter run."""
    return max(1, min(NEW_PROGRESS_ITERATIONS, iters // 10))


def backoff(crashes: Sequence[Crash], *, max_restarts: int, crash_loop: int, iters: int, jitter: float) -> Backoff:
    """Decide whether and when a crashed job is restarted after these crashes since the last submit or retry.

    New progress resets the count. The first consecutive crash is answered immediately, later ones after 10 s * 2^n, at
    most 10 min, and up to a tenth more by `jitter` (0 to 1).
    """
    enough = new_progress(iters)
    count = same = 0
    before = None
    for crash in crashes:
        fresh = crash.gained >= enough
        count = 1 if fresh else count + 1
        same = 1 if fresh or crash.reason != before else same + 1
        before = crash.reason
    looping = count > crash_loop
    return Backoff(
        consecutive_crashes=count,
        consecutive_same_reason=same,
        may_retry=count <= max_restarts and not looping,
        looping=looping,
        delay_s=_delay(count, jitter),
    )


def _delay(crashes: int, jitter: float) -> float:
    if crashes <= 1:
        return 0.0
    doubled = FIRST_DELAY_S * 2.0 ** min(crashes - 2, MAX_DOUBLINGS)
    return min(doubled, LONGEST_DELAY_S) * (1 + 0.1 * jitter)
