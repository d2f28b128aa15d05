"""Delivery of messages: retries, intervals, quiet hours, and inclusion in other messages."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.model import time_windows
from jobs.model.job import Message, ServiceResult
from jobs.policies import delivery
from jobs.policies.delivery import (
    MIN_INTERVAL_S,
    NO_LONGER_CONFIGURED,
    NextTry,
    due_at,
    is_pending,
    next_try,
    quiet_until,
)

DAY = 24 * 3600.0
BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = time_windows.parse_window("23:00-07:00")


def service(*, delivered: bool = False, tries: int = 1, last: str = "failed", name: str = "phone") -> ServiceResult:
    return ServiceResult(service=name, delivered=delivered, tries=tries, last_result=last)


def row(
    number: int,
    event: str = "recovered",
    *,
    job_id: int | None = 1,
    at: float | None = None,
    due: float | None = None,
    services: tuple[ServiceResult, ...] = (),
) -> Message:
    created_at = float(number) if at is None else at
    return Message(
        id=number,
        job_id=job_id,
        event=event,
        key=str(number),
        title="t",
        body="b",
        attachment=None,
        tags=None,
        created_at=created_at,
        next_try_at=None,
        settled=None,
        services=services,
        due_at=created_at if due is None else due,
    )


# --- retries ---


@pytest.mark.parametrize(("tries", "delay"), [(0, 30), (1, 30), (2, 60), (3, 120), (7, 1800), (5000, 1800)])
def test_delays_double_to_half_an_hour(tries: int, delay: float) -> None:
    assert next_try([service(tries=tries)], first_try=0.0, now=0.0, jitter=0.0) == NextTry(at=delay, settled=None)


@pytest.mark.parametrize(
    ("services", "settled"),
    [
        ([], "nobody"),
        ([service(last=NO_LONGER_CONFIGURED)], "nobody"),
        ([service(delivered=True)], "delivered"),
        ([service(delivered=True), service(last=NO_LONGER_CONFIGURED)], "delivered"),
        ([service(delivered=True), service(last=delivery.INCLUDED_IN_DIGEST)], "delivered"),
        ([service(last=delivery.INCLUDED_IN_DIGEST), service(last=NO_LONGER_CONFIGURED)], "folded"),
        ([service(last=delivery.INCLUDED_LATER)], "folded"),
        ([service(last=delivery.INCLUDED_AT_END)], "folded"),
    ],
)
def test_message_without_pending_is_settled(services: Sequence[ServiceResult], settled: str) -> None:
    then = next_try(services, first_try=0.0, now=5.0, jitter=0.0)
    assert (then.at, then.settled) == (None, settled)


def test_failing_service_keeps_message_open() -> None:
    assert next_try([service(delivered=True), service()], first_try=0.0, now=5.0, jitter=0.0).at == 35.0


def test_delivery_gives_up_after_a_day() -> None:
    assert next_try([service()], first_try=0.0, now=DAY, jitter=0.0) == NextTry(at=None, settled="gave_up")
    assert next_try([service(tries=9)], first_try=0.0, now=DAY - 1, jitter=0.0).at == DAY


@given(tries=st.integers(0, 100), now=st.floats(0, DAY - 1), jitter=st.floats(0, 1))
def test_next_try_is_within_the_day(tries: int, now: float, jitter: float) -> None:
    at = next_try([service(tries=tries)], first_try=0.0, now=now, jitter=jitter).at
    assert at is not None
    assert now < at <= min(DAY, now + 1800 * 1.1)


def test_delivered_message_is_not_pending() -> None:
    assert not is_pending(service(delivered=True))
    assert is_pending(service())


# --- minimum interval ---


@pytest.mark.parametrize(
    ("previous", "now", "due"),
    [
        (None, 100.0, 100.0),
        (100.0, 100.0, 1000.0),
        (100.0, 999.0, 1000.0),
        (100.0, 1000.0, 1000.0),
        (100.0, 5000.0, 5000.0),
        (1000.0, 400.0, 1000.0),  # the earlier one still waits; both go together
        (1000.0, 1000.0, 1900.0),  # the earlier one was just sent
        (1e9, 100.0, 1000.0),  # the clock was set back
    ],
)
def test_second_message_waits_for_interval(previous: float | None, now: float, due: float) -> None:
    assert due_at(previous, now) == due


@given(gaps=st.lists(st.floats(0, 3000), min_size=1, max_size=60))
def test_due_times_keep_the_interval(gaps: list[float]) -> None:
    now, due, all_due = 0.0, None, set()
    for gap in gaps:
        now += gap
        due = due_at(due, now)
        assert now <= due <= now + MIN_INTERVAL_S
        all_due.add(due)
    times = sorted(all_due)
    assert all(later - sooner >= MIN_INTERVAL_S - 1e-6 for sooner, later in itertools.pairwise(times))


# --- quiet hours ---


def test_quiet_hours_delay_normal_messages() -> None:
    late = datetime(2026, 10, 24, 23, 30, tzinfo=BERLIN).timestamp()
    morning = datetime(2026, 10, 25, 7, 0, tzinfo=BERLIN).timestamp()
    assert morning - late == 8.5 * 3600, "the clocks change in this night"
    for event in ("submitted", "started", "recovered", "spike_handled", "failed", "finished"):
        assert quiet_until(event, late, NIGHT, BERLIN) == morning
        assert quiet_until(event, morning, NIGHT, BERLIN) is None
        assert quiet_until(event, late, None, BERLIN) is None
    for event in ("needs_you", "deadline", "digest"):
        assert quiet_until(event, late, NIGHT, BERLIN) is None


# --- inclusion in another message ---


@pytest.mark.parametrize(
    ("message", "other", "how"),
    [
        (row(1), row(2), delivery.INCLUDED_LATER),
        (row(2), row(1), None),
        (row(1), row(1), None),
        (row(1), row(2, job_id=2), None),
        (row(1), row(2, due=999.0), None),  # still waits
        (row(1, services=(service(),)), row(2), delivery.INCLUDED_LATER),
        (row(1, services=(service(delivered=True), service(name="mail"))), row(2), None),  # delivered to one service
        (row(1), row(2, "finished"), delivery.INCLUDED_AT_END),
        (row(1), row(2, "failed"), delivery.INCLUDED_AT_END),
        (row(1, "started"), row(2, "finished"), delivery.INCLUDED_AT_END),
        (row(1, "spike_handled"), row(2, "finished", due=999.0), delivery.INCLUDED_AT_END),
        (row(1), row(2, "needs_you"), None),
        (row(1), dataclasses.replace(row(2, "finished"), settled="gave_up"), None),
        (row(1, "failed"), row(2, "finished"), None),
        (row(1, "needs_you"), row(2, "finished"), None),
        (row(1), row(2, "digest", job_id=None), delivery.INCLUDED_IN_DIGEST),
        (row(1, "finished"), row(2, "digest", job_id=None), delivery.INCLUDED_IN_DIGEST),
        (row(1, "needs_you"), row(2, "digest", job_id=None), None),
        (row(1, "deadline"), row(2, "digest", job_id=None), None),
        (row(1, "digest", job_id=None), row(2, "digest", job_id=None), None),  # each digest covers its own day
        (row(1, "test", job_id=None), row(2, "test", job_id=None), None),
    ],
)
def test_inclusion_in_another_message(message: Message, other: Message, how: str | None) -> None:
    assert delivery.included_in(message, other, now=10.0) == how


DELIVERED = (service(delivered=True, last="delivered"),)


def included(how: str) -> tuple[ServiceResult, ...]:
    return (service(tries=0, last=how),)


@pytest.mark.parametrize(
    ("message", "earlier", "counted"),
    [
        (row(3), [], [3]),
        (row(3), [row(1, services=DELIVERED), row(2, services=DELIVERED)], [3]),
        (row(3, due=900.0), [row(1, services=DELIVERED), row(2, services=DELIVERED)], [2, 3]),  # it waited for 2
        (row(3, due=900.0), [row(1, services=DELIVERED), row(2, due=900.0)], [1, 2, 3]),
        (row(3), [row(1), row(2, services=included(delivery.INCLUDED_LATER))], [1, 2, 3]),
        (row(3), [row(1), row(2, services=included(delivery.INCLUDED_IN_DIGEST))], [3]),
        (row(3), [row(1), row(2, services=included(delivery.INCLUDED_AT_END))], [3]),
        (
            row(3),
            [row(1, services=(service(),)), row(2, services=(service(),))],
            [1, 2, 3],
        ),  # no service was reached
    ],
)
def test_message_includes_undelivered_ones(message: Message, earlier: list[Message], counted: list[int]) -> None:
    assert [each.id for each in delivery.occurrences(message, earlier)] == counted


@given(st.lists(st.tuples(st.floats(0, 2000), st.booleans()), min_size=1, max_size=30))
def test_every_message_is_mentioned(arrivals: list[tuple[float, bool]]) -> None:
    """Messages of one event are written, and delivered when due to a service that is available or not."""
    rows: list[Message] = []
    mentioned: set[int] = set()
    now, due = 0.0, None
    for gap, available in arrivals:
        _deliver_due(rows, mentioned, now, now + gap, available=available)
        now += gap
        due = due_at(due, now)
        rows.append(row(len(rows) + 1, at=now, due=due))
    _deliver_due(rows, mentioned, now, now + DAY, available=True)
    assert mentioned == {each.id for each in rows}


def _deliver_due(rows: list[Message], mentioned: set[int], start: float, end: float, *, available: bool) -> None:
    for moment in sorted({max(each.due_at or 0.0, start) for each in rows if (each.due_at or 0.0) <= end}):
        for index, message in enumerate(list(rows)):
            if (message.due_at or 0.0) > moment or any(not is_pending(result) for result in message.services):
                continue
            how = next(filter(None, (delivery.included_in(message, other, moment) for other in rows)), None)
            if how is None and available:
                mentioned |= {each.id for each in delivery.occurrences(message, rows[:index])}
            last = how or ("delivered" if available else "failed")
            result = service(delivered=how is None and available, last=last)
            rows[index] = dataclasses.replace(message, services=(result,))
