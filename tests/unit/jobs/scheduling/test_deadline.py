"""Whether a deadline will be missed."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from jobs.model import time_windows
from jobs.scheduling.constraints import late


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_late_only_beyond_the_margin() -> None:
    now, due = at("2026-11-25 22:00"), at("2026-11-26 07:30")
    left = due - now
    assert late(due, now=now, left_s=left, window=None, zone=UTC) is None
    assert late(due, now=now, left_s=1.05 * left, window=None, zone=UTC) is None
    assert late(due, now=now, left_s=1.2 * left, window=None, zone=UTC) == now + 1.2 * left


def test_passed_deadline_is_late() -> None:
    assert late(100.0, now=101.0, left_s=0.0, window=None, zone=UTC) is not None


def test_only_hours_of_the_window_count() -> None:
    now = at("2026-11-25 21:00")
    window = time_windows.parse_window("22:00-23:00")
    end = late(at("2026-11-26 12:00"), now=now, left_s=2 * 3600.0, window=window, zone=UTC)
    assert end == at("2026-11-26 23:00")


@given(left=st.floats(0, 1e6), more=st.floats(0, 1e6), ahead=st.floats(0, 1e6), start=st.integers(0, 1439))
def test_more_work_is_never_less_late(left: float, more: float, ahead: float, start: int) -> None:
    window = time_windows.TimeWindow(start=start, end=(start + 400) % 1440)
    now = at("2026-11-25 21:00")
    if late(now + ahead, now=now, left_s=left, window=window, zone=UTC) is not None:
        assert late(now + ahead, now=now, left_s=left + more, window=window, zone=UTC) is not None
