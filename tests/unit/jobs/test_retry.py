"""When a job that died tries again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.retry import backoff

GAINS = st.lists(st.integers(0, 400), min_size=1, max_size=40)
JITTER = st.floats(0, 1)


@given(progress=GAINS, max_restarts=st.integers(0, 50), jitter=JITTER)
def test_nobody_waits_longer_than_eleven_minutes(progress: list[int], max_restarts: int, jitter: float) -> None:
    answer = backoff(progress=progress, max_restarts=max_restarts, jitter=jitter)
    assert 0 <= answer.delay_s <= 600 * 1.1


@given(before=st.lists(st.integers(0, 400), max_size=10), gained=st.integers(200, 10_000), jitter=JITTER)
def test_two_hundred_new_iterations_start_the_count_anew(before: list[int], gained: int, jitter: float) -> None:
    answer = backoff(progress=[*before, gained], max_restarts=1, jitter=jitter)
    assert (answer.deaths_in_a_row, answer.may_retry, answer.delay_s) == (1, True, 0.0)


@given(progress=GAINS, max_restarts=st.integers(0, 50), jitter=JITTER)
def test_it_tries_again_exactly_as_often_as_was_asked(progress: list[int], max_restarts: int, jitter: float) -> None:
    answer = backoff(progress=progress, max_restarts=max_restarts, jitter=jitter)
    assert 1 <= answer.deaths_in_a_row <= len(progress)
    assert answer.may_retry == (answer.deaths_in_a_row <= max_restarts)


@given(progress=st.lists(st.integers(0, 199), min_size=1, max_size=40), jitter=JITTER)
def test_each_further_death_waits_at_least_as_long(progress: list[int], jitter: float) -> None:
    delays = [
        backoff(progress=progress[:count], max_restarts=99, jitter=jitter).delay_s
        for count in range(1, len(progress) + 1)
    ]
    assert delays == sorted(delays)
    assert delays[0] == 0.0


def test_the_delays_double_from_ten_seconds_to_ten_minutes() -> None:
    delays = [backoff(progress=[0] * deaths, max_restarts=99, jitter=0.0).delay_s for deaths in range(1, 11)]
    assert delays == [0, 10, 20, 40, 80, 160, 320, 600, 600, 600]


@pytest.mark.parametrize(("gained", "deaths"), [(199, 2), (200, 1)])
def test_the_two_hundredth_iteration_counts(gained: int, deaths: int) -> None:
    assert backoff(progress=[0, gained], max_restarts=5, jitter=0.0).deaths_in_a_row == deaths


def test_a_job_that_may_die_without_end_still_gets_an_answer() -> None:
    answer = backoff(progress=[0] * 5000, max_restarts=10_000, jitter=1.0)
    assert (answer.deaths_in_a_row, answer.may_retry, answer.delay_s) == (5000, True, 660.0)


def test_no_restarts_means_none() -> None:
    assert not backoff(progress=[10_000], max_restarts=0, jitter=0.0).may_retry
