"""When a notification is tried again, and when it is done with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.job import ServiceResult
from jobs.outbox import NO_LONGER_CONFIGURED, NextTry, is_pending, next_try

DAY = 24 * 3600.0


def service(*, delivered: bool = False, tries: int = 1, last: str = "failed") -> ServiceResult:
    return ServiceResult(service="json 1", delivered=delivered, tries=tries, last_result=last)


@pytest.mark.parametrize(("tries", "delay"), [(0, 30), (1, 30), (2, 60), (3, 120), (7, 1800), (5000, 1800)])
def test_the_delays_double_from_half_a_minute_to_half_an_hour(tries: int, delay: float) -> None:
    assert next_try([service(tries=tries)], created_at=0.0, now=0.0, jitter=0.0) == NextTry(at=delay, settled=None)


@pytest.mark.parametrize(
    ("services", "settled"),
    [
        ([], "nobody"),
        ([service(last=NO_LONGER_CONFIGURED)], "nobody"),
        ([service(delivered=True)], "delivered"),
        ([service(delivered=True), service(last=NO_LONGER_CONFIGURED)], "delivered"),
    ],
)
def test_a_message_nobody_is_owed_is_settled(services: list[ServiceResult], settled: str) -> None:
    assert next_try(services, created_at=0.0, now=5.0, jitter=0.0) == NextTry(at=None, settled=settled)  # type: ignore[arg-type]


def test_one_service_that_fails_keeps_the_message_open() -> None:
    assert next_try([service(delivered=True), service()], created_at=0.0, now=5.0, jitter=0.0).at == 35.0


def test_after_a_day_it_gives_up() -> None:
    assert next_try([service()], created_at=0.0, now=DAY, jitter=0.0) == NextTry(at=None, settled="gave_up")
    assert next_try([service(tries=9)], created_at=0.0, now=DAY - 1, jitter=0.0).at == DAY


@given(tries=st.integers(0, 100), now=st.floats(0, DAY - 1), jitter=st.floats(0, 1))
def test_the_next_try_lies_ahead_and_within_the_day(tries: int, now: float, jitter: float) -> None:
    at = next_try([service(tries=tries)], created_at=0.0, now=now, jitter=jitter).at
    assert at is not None
    assert now < at <= min(DAY, now + 1800 * 1.1)


def test_what_was_delivered_is_not_sent_again() -> None:
    assert not is_pending(service(delivered=True))
    assert is_pending(service())
