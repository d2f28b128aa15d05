"""When to try again: the backoff rule (policies.md 3). Pure: time and chance are arguments."""

from __future__ import annotations

import dataclasses

FIRST_DELAY_S = 10.0
LONGEST_DELAY_S = 600.0
MOST_DOUBLINGS = 16  # far past the longest delay, far below what a float can hold
NEW_PROGRESS_ITERATIONS = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Backoff:
    """The answer: how often in a row it died, whether it may try again, and after how long."""

    deaths_in_a_row: int  # this death included, counted since the last new progress
    may_retry: bool
    delay_s: float


def backoff(*, progress: list[int], max_restarts: int, jitter: float) -> Backoff:
    """Decide whether and when a job that died tries again.

    A death after `NEW_PROGRESS_ITERATIONS` new iterations starts the count anew. The first death in a row is
    answered at once; then 10 s * 2^n, at most 10 min.

    Args:
        progress: for each attempt that died since the user last asked for the job, oldest first, the new iterations it
            brought beyond every earlier one; the last entry is the attempt that just died.
        max_restarts: how many deaths in a row are answered by a restart.
        jitter: 0..1, spreads the delay by up to a tenth.
    """
    deaths = 0
    for gained in progress:
        deaths = 1 if gained >= NEW_PROGRESS_ITERATIONS else deaths + 1
    return Backoff(deaths_in_a_row=deaths, may_retry=deaths <= max_restarts, delay_s=_delay(deaths, jitter))


def _delay(deaths: int, jitter: float) -> float:
    if deaths <= 1:
        return 0.0
    doubled = FIRST_DELAY_S * 2.0 ** min(deaths - 2, MOST_DOUBLINGS)
    return min(doubled, LONGEST_DELAY_S) * (1 + 0.1 * jitter)
