"""Whether a deadline is lost."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from jobs.model import time_windows
from jobs.scheduling.deadline import FEWEST_REPORTS, Pace, late


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_a_pace_leaves_the_first_report_out_and_counts_what_lies_between() -> None:
    pace = Pace()
    pace.take(10, 100.0)  # the step was compiled in these hundred seconds
    for number in range(1, FEWEST_REPORTS):
        pace.take(10 + 10 * number, 100.0 + 5.0 * number)
        assert pace.seconds is None, "too little is known"
    pace.take(10 + 10 * FEWEST_REPORTS, 100.0 + 5.0 * FEWEST_REPORTS + 50.0)  # a validation lay between
    assert pace.seconds == (5.0 * FEWEST_REPORTS + 50.0) / (10 * FEWEST_REPORTS)


def test_a_deadline_is_lost_only_beyond_the_doubt_of_a_forecast() -> None:
    now, due = at("2026-11-25 22:00"), at("2026-11-26 07:30")
    left = due - now
    assert late(due, now=now, left_s=left, window=None, zone=UTC) is None
    assert late(due, now=now, left_s=1.05 * left, window=None, zone=UTC) is None
    found = late(due, now=now, left_s=1.2 * left, window=None, zone=UTC)
    assert found is not None
    assert (found.due, found.expected) == (due, now + 1.2 * left)


def test_a_deadline_that_has_passed_is_lost() -> None:
    assert late(100.0, now=101.0, left_s=0.0, window=None, zone=UTC) is not None


def test_only_the_hours_of_its_window_count() -> None:
    now = at("2026-11-25 21:00")
    window = time_windows.parse_window("22:00-23:00")
    found = late(at("2026-11-26 12:00"), now=now, left_s=2 * 3600.0, window=window, zone=UTC)
    assert found is not None
    assert found.expected == at("2026-11-26 23:00")


@given(left=st.floats(0, 1e6), more=st.floats(0, 1e6), ahead=st.floats(0, 1e6), start=st.integers(0, 1439))
def test_more_work_never_makes_a_lost_deadline_a_good_one(left: float, more: float, ahead: float, start: int) -> None:
    window = time_windows.TimeWindow(start=start, end=(start + 400) % 1440)
    now = at("2026-11-25 21:00")
    if late(now + ahead, now=now, left_s=left, window=window, zone=UTC) is not None:
        assert late(now + ahead, now=now, left_s=left + more, window=window, zone=UTC) is not None
