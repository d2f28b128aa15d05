"""Backoff and the crash-loop limit."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.policies.retry import Backoff, Crash, backoff, new_progress

GAINS = st.lists(st.integers(0, 400), min_size=1, max_size=40)
JITTER = st.floats(0, 1)
NEVER_A_LOOP = 10_000


def answer_to(
    progress: Sequence[int],
    *,
    max_restarts: int,
    crash_loop: int = NEVER_A_LOOP,
    iters: int = 10_000,
    jitter: float = 0.0,
    reasons: Sequence[str] | None = None,
) -> Backoff:
    """Return the backoff after crashes with these numbers of new iterations."""
    whys = reasons if reasons is not None else ["killed"] * len(progress)
    crashes = [Crash(gained=gained, reason=why) for gained, why in zip(progress, whys, strict=True)]
    return backoff(crashes, max_restarts=max_restarts, crash_loop=crash_loop, iters=iters, jitter=jitter)


@given(progress=GAINS, max_restarts=st.integers(0, 50), jitter=JITTER)
def test_delay_is_at_most_eleven_minutes(progress: list[int], max_restarts: int, jitter: float) -> None:
    answer = answer_to(progress, max_restarts=max_restarts, jitter=jitter)
    assert 0 <= answer.delay_s <= 600 * 1.1


@given(before=st.lists(st.integers(0, 400), max_size=10), gained=st.integers(200, 10_000), jitter=JITTER)
def test_new_progress_resets_the_count(before: list[int], gained: int, jitter: float) -> None:
    answer = answer_to([*before, gained], max_restarts=1, crash_loop=1, jitter=jitter)
    assert (answer.consecutive_crashes, answer.may_retry, answer.delay_s) == (1, True, 0.0)
    assert (answer.consecutive_same_reason, answer.looping) == (1, False)


@given(progress=GAINS, max_restarts=st.integers(0, 50), jitter=JITTER)
def test_restarts_are_limited(progress: list[int], max_restarts: int, jitter: float) -> None:
    answer = answer_to(progress, max_restarts=max_restarts, jitter=jitter)
    assert 1 <= answer.consecutive_crashes <= len(progress)
    assert answer.may_retry == (answer.consecutive_crashes <= max_restarts)


@given(progress=st.lists(st.integers(0, 199), min_size=1, max_size=40), jitter=JITTER)
def test_delays_never_decrease(progress: list[int], jitter: float) -> None:
    delays = [
        answer_to(progress[:count], max_restarts=99, jitter=jitter).delay_s for count in range(1, len(progress) + 1)
    ]
    assert delays == sorted(delays)
    assert delays[0] == 0.0


def test_delays_double_to_ten_minutes() -> None:
    delays = [answer_to([0] * crashes, max_restarts=99).delay_s for crashes in range(1, 11)]
    assert delays == [0, 10, 20, 40, 80, 160, 320, 600, 600, 600]


@pytest.mark.parametrize(("gained", "crashes"), [(199, 2), (200, 1)])
def test_two_hundred_iterations_are_enough(gained: int, crashes: int) -> None:
    assert answer_to([0, gained], max_restarts=5).consecutive_crashes == crashes


@pytest.mark.parametrize(("iters", "progress"), [(100_000, 200), (2000, 200), (1990, 199), (120, 12), (10, 1), (1, 1)])
def test_short_run_needs_a_tenth(iters: int, progress: int) -> None:
    assert new_progress(iters) == progress
    assert answer_to([0, progress], max_restarts=5, iters=iters).consecutive_crashes == 1
    assert answer_to([0, progress - 1], max_restarts=5, iters=iters).consecutive_crashes == 2


def test_many_crashes_do_not_overflow() -> None:
    answer = answer_to([0] * 5000, max_restarts=10_000, jitter=1.0)
    assert (answer.consecutive_crashes, answer.may_retry, answer.delay_s) == (5000, True, 660.0)


def test_zero_restarts_means_none() -> None:
    answer = answer_to([10_000], max_restarts=0)
    assert (answer.may_retry, answer.looping) == (False, False)


@given(progress=GAINS, crash_loop=st.integers(1, 10), jitter=JITTER)
def test_restarts_without_progress_loop(progress: list[int], crash_loop: int, jitter: float) -> None:
    answer = answer_to(progress, max_restarts=1000, crash_loop=crash_loop, jitter=jitter)
    assert answer.looping == (answer.consecutive_crashes > crash_loop)
    assert answer.may_retry == (not answer.looping)


@pytest.mark.parametrize(
    ("progress", "reasons", "same"),
    [
        ([0], ["killed"], 1),
        ([0, 0, 0], ["killed", "killed", "killed"], 3),
        ([0, 0, 0], ["killed", "killed", "gpu_watchdog"], 1),
        ([0, 0, 0], ["killed", "gpu_watchdog", "gpu_watchdog"], 2),
        ([0, 500, 0], ["gpu_watchdog", "gpu_watchdog", "gpu_watchdog"], 2),  # the second one came after new progress
    ],
)
def test_consecutive_same_reason_is_counted(progress: list[int], reasons: list[str], same: int) -> None:
    assert answer_to(progress, max_restarts=9, reasons=reasons).consecutive_same_reason == same
