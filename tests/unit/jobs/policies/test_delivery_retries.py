"""When a message is tried again, and when it is settled."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.model.job import ServiceResult
from jobs.policies.delivery import GIVE_UP_AFTER_S, NO_LONGER_CONFIGURED, next_try

DAY_S = 24 * 3600.0


def result(*, delivered: bool = False, tries: int = 1, last: str = "failed", name: str = "json 1") -> ServiceResult:
    return ServiceResult(service=name, delivered=delivered, tries=tries, last_result=last)


@pytest.mark.parametrize(("tries", "minutes"), [(1, 0.5), (2, 1), (3, 2), (6, 16), (7, 30), (8, 30), (5000, 30)])
def test_retry_delay_doubles_to_30_min(tries: int, minutes: float) -> None:
    then = next_try([result(tries=tries)], first_try=0, now=1000, jitter=0)
    assert then.settled is None
    assert then.at == 1000 + minutes * 60


def test_jitter_adds_up_to_a_tenth() -> None:
    assert next_try([result()], first_try=0, now=0, jitter=1).at == pytest.approx(33)


def test_last_try_after_24_hours() -> None:
    assert GIVE_UP_AFTER_S == DAY_S
    failed = [result(tries=40)]
    assert next_try(failed, first_try=100, now=100 + DAY_S - 5, jitter=0).at == 100 + DAY_S
    assert next_try(failed, first_try=100, now=100 + DAY_S, jitter=0).settled == "gave_up"


@pytest.mark.parametrize(
    ("results", "settled"),
    [
        ([], "nobody"),
        ([result(last=NO_LONGER_CONFIGURED)], "nobody"),
        ([result(delivered=True, last="delivered")], "delivered"),
        ([result(delivered=True, last="delivered"), result(name="b", last=NO_LONGER_CONFIGURED)], "delivered"),
        ([result(delivered=True, last="delivered"), result(name="b")], None),
    ],
)
def test_settled_without_pending_services(results: list[ServiceResult], settled: str | None) -> None:
    then = next_try(results, first_try=0, now=10, jitter=0)
    assert then.settled == settled
    assert (then.at is None) == (settled is not None)


@given(
    tries=st.integers(1, 10_000),
    age=st.floats(0, 3 * DAY_S),
    jitter=st.floats(0, 1),
)
def test_failed_try_has_later_try_or_end(tries: int, age: float, jitter: float) -> None:
    then = next_try([result(tries=tries)], first_try=5e8, now=5e8 + age, jitter=jitter)
    if then.at is None:
        assert then.settled == "gave_up"
        assert age >= DAY_S - 1e-3
    else:
        assert 5e8 + age < then.at <= min(5e8 + DAY_S, 5e8 + age + 1.1 * 1800 + 1e-3)
