"""When to try again: backoff and the crash-loop breaker (policies.md 2 and 3). Pure: time and chance are arguments."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

FIRST_DELAY_S = 10.0
LONGEST_DELAY_S = 600.0
MOST_DOUBLINGS = 16  # far past the longest delay, far below what a float can hold
NEW_PROGRESS_ITERATIONS = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crash:
    """An attempt that died."""

    gained: int  # iterations beyond every earlier attempt's
    reason: str  # a Reason code


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backoff:
    """The answer: how often in a row it died, whether it may try again, and after how long."""

    consecutive_crashes: int  # this death included, counted since the last new progress
    consecutive_same_reason: int  # of them, the last ones that had this reason
    may_retry: bool
    looping: bool  # it may not, because restarts have stopped bringing it any further
    delay_s: float


def new_progress(iters: int) -> int:
    """Return how many new iterations count as progress: 200, or a tenth of a run too short for that to mean anything.

    Args:
        iters: iterations of the whole run.
    """
    return max(1, min(NEW_PROGRESS_ITERATIONS, iters // 10))


def backoff(crashes: Sequence[Crash], *, max_restarts: int, crash_loop: int, iters: int, jitter: float) -> Backoff:
    """Decide whether and when a job that died tries again.

    A death after new progress starts the count anew. The first death in a row is answered at once; then 10 s * 2^n,
    at most 10 min.

    Args:
        crashes: since the user last asked for the job, oldest first; the last is the attempt that just died.
        max_restarts: deaths in a row that are answered by a restart.
        crash_loop: restarts of any kind in a row after which the run is taken to die at the same place for ever.
        iters: iterations of the whole run.
        jitter: 0..1, spreads the delay by up to a tenth.
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
    doubled = FIRST_DELAY_S * 2.0 ** min(crashes - 2, MOST_DOUBLINGS)
    return min(doubled, LONGEST_DELAY_S) * (1 + 0.1 * jitter)
