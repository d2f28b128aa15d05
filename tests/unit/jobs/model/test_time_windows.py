"""Times of day and time windows, also on days when the clocks change."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.model import time_windows
from jobs.model.time_windows import TimeWindow

BERLIN = ZoneInfo("Europe/Berlin")  # 2026: forward on March 29 at 2:00, back on October 25 at 3:00
ZONES = [BERLIN, ZoneInfo("America/New_York"), ZoneInfo("Australia/Lord_Howe"), ZoneInfo("Asia/Kolkata"), UTC]
NIGHT = time_windows.parse_window("23:00-07:00")

MINUTES = st.integers(0, 24 * 60 - 1)
WINDOWS = (
    st.tuples(MINUTES, MINUTES).filter(lambda pair: pair[0] != pair[1]).map(lambda p: TimeWindow(start=p[0], end=p[1]))
)
MOMENTS = st.floats(datetime(2025, 1, 1, tzinfo=UTC).timestamp(), datetime(2028, 1, 1, tzinfo=UTC).timestamp())


def at(text: str, zone: tzinfo = BERLIN) -> float:
    """Return the moment of a local time; a trailing `*` means its second occurrence."""
    return datetime.fromisoformat(text.rstrip("*")).replace(tzinfo=zone, fold=int(text.endswith("*"))).timestamp()


@pytest.mark.parametrize(("text", "minute"), [("07:00", 420), ("7:05", 425), ("00:00", 0), ("23:59", 1439)])
def test_parse_time_reads_minutes(text: str, minute: int) -> None:
    assert time_windows.parse_time(text) == minute


@pytest.mark.parametrize("text", ["", "7", "24:00", "7:5", "7:60", "7am", "07:00:00", "-1:00", "٠٧:٠٠x"])
def test_invalid_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a time such as"):
        time_windows.parse_time(text)


@pytest.mark.parametrize(
    "text", ["", "23:00", "23:00-", "23:00 to 07:00", "07:00-7:00", "23:00-25:00", "1:00-2:00-3:00"]
)
def test_invalid_window_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="two different times"):
        time_windows.parse_window(text)


def test_parse_window_ignores_blanks() -> None:
    assert time_windows.parse_window("23:00 - 7:00") == NIGHT == TimeWindow(start=1380, end=420)


@pytest.mark.parametrize(
    ("now", "end"),
    [
        ("2026-05-04 22:59:59", None),
        ("2026-05-04 23:00", "2026-05-05 07:00"),
        ("2026-05-05 00:00", "2026-05-05 07:00"),
        ("2026-05-05 06:59:59", "2026-05-05 07:00"),
        ("2026-05-05 07:00", None),
        ("2026-05-05 12:00", None),
        ("2026-03-28 23:30", "2026-03-29 07:00"),  # seven hours from 23:00
        ("2026-03-29 03:00", "2026-03-29 07:00"),
        ("2026-10-25 02:30", "2026-10-25 07:00"),
        ("2026-10-25 02:30*", "2026-10-25 07:00"),  # nine hours
    ],
)
def test_window_closes_at_local_time(now: str, end: str | None) -> None:
    assert time_windows.until(NIGHT, at(now), BERLIN) == (None if end is None else at(end))


@pytest.mark.parametrize(
    ("window", "now", "end"),
    [
        # 02:15 and 02:45 do not exist on this day and become 03:15 and 03:45
        ("02:15-02:45", "2026-03-29 03:20", "2026-03-29 03:45"),
        ("02:15-02:45", "2026-03-29 03:50", None),
        # 02:30 occurs twice; a window that has closed does not open again
        ("23:00-02:30", "2026-10-25 02:15", "2026-10-25 02:30"),
        ("23:00-02:30", "2026-10-25 02:15*", None),
        ("02:30-04:00", "2026-10-25 02:45", "2026-10-25 04:00"),
        ("02:30-04:00", "2026-10-25 02:15*", "2026-10-25 04:00"),
    ],
)
def test_skipped_and_repeated_times(window: str, now: str, end: str | None) -> None:
    assert time_windows.until(time_windows.parse_window(window), at(now), BERLIN) == (None if end is None else at(end))


@pytest.mark.parametrize(
    ("text", "now", "day", "moment"),
    [
        ("07:00", "2026-05-05 06:59:59", date(2026, 5, 4), "2026-05-04 07:00"),
        ("07:00", "2026-05-05 07:00", date(2026, 5, 5), "2026-05-05 07:00"),
        ("07:00", "2026-05-05 23:59", date(2026, 5, 5), "2026-05-05 07:00"),
        ("02:30", "2026-03-29 03:29", date(2026, 3, 28), "2026-03-28 02:30"),
        ("02:30", "2026-03-29 03:31", date(2026, 3, 29), "2026-03-29 03:30"),
        ("02:30", "2026-10-25 02:30*", date(2026, 10, 25), "2026-10-25 02:30"),
    ],
)
def test_latest_occurrence_of_a_time(text: str, now: str, day: date, moment: str) -> None:
    assert time_windows.latest(time_windows.parse_time(text), at(now), BERLIN) == (day, at(moment))


@given(window=WINDOWS, now=MOMENTS, zone=st.sampled_from(ZONES))
def test_window_closes_within_a_day(window: TimeWindow, now: float, zone: tzinfo) -> None:
    end = time_windows.until(window, now, zone)
    if end is None:
        return
    assert now < end <= now + 25 * 3600  # the longest day
    assert time_windows.until(window, end, zone) is None or _changes(end, zone)
    if not _changes(end, zone):
        local = datetime.fromtimestamp(end, tz=zone)
        assert 60 * local.hour + local.minute == window.end


@given(window=WINDOWS, now=MOMENTS, zone=st.sampled_from(ZONES))
def test_window_follows_the_local_clock(window: TimeWindow, now: float, zone: tzinfo) -> None:
    if any(_changes(now + days * 86400, zone) for days in (-1, 0, 1)):
        return
    local = datetime.fromtimestamp(now, tz=zone)
    minute = 60 * local.hour + local.minute
    inside = (
        window.start <= minute < window.end if window.start < window.end else not window.end <= minute < window.start
    )
    assert (time_windows.until(window, now, zone) is not None) == inside


@given(minute=MINUTES, now=MOMENTS, zone=st.sampled_from(ZONES))
def test_every_day_has_each_time_once(minute: int, now: float, zone: tzinfo) -> None:
    day, moment = time_windows.latest(minute, now, zone)
    assert now - 25 * 3600 < moment <= now
    again, same = time_windows.latest(minute, moment, zone)
    assert (again, same) == (day, moment)
    following, later = time_windows.latest(minute, moment + 25 * 3600, zone)
    assert following == day + timedelta(days=1)
    assert 22.5 * 3600 < later - moment <= 25 * 3600


def test_default_zone_is_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    import time as clock

    monkeypatch.setenv("TZ", "America/New_York")
    clock.tzset()
    try:
        new_york = ZoneInfo("America/New_York")
        for text in ("2026-03-08 01:30", "2026-11-01 01:30", "2026-11-01 01:30*", "2026-07-01 12:00"):
            now = at(text, new_york)
            assert time_windows.until(NIGHT, now, None) == time_windows.until(NIGHT, now, new_york)
            assert time_windows.latest(150, now, None) == time_windows.latest(150, now, new_york)
    finally:
        monkeypatch.undo()
        clock.tzset()


def _changes(now: float, zone: tzinfo) -> bool:
    """Return whether the clocks change on the day of `now`."""
    day = datetime.fromtimestamp(now, tz=zone).date()
    midnights = [datetime.combine(day + timedelta(days=days), time(), tzinfo=zone).timestamp() for days in (0, 1)]
    return midnights[1] - midnights[0] != 86400


# --- windows and deadlines ---


@given(WINDOWS, MOMENTS, st.sampled_from(ZONES))
def test_window_opens_at_its_start(window: TimeWindow, now: float, zone: tzinfo) -> None:
    opens = time_windows.opens(window, now, zone)
    assert time_windows.until(window, opens, zone) is not None
    assert opens == now or (opens > now and time_windows.until(window, now, zone) is None)
    assert opens - now < 2 * 86400 + 7200


@given(WINDOWS, MOMENTS, st.sampled_from(ZONES), st.integers(1, 30 * 86400))
def test_work_runs_only_inside_the_window(window: TimeWindow, now: float, zone: tzinfo, seconds: int) -> None:
    end = time_windows.ends_after(window, now, seconds, zone)
    assert end - now >= seconds * (1 - 1e-9)
    assert time_windows.until(window, max(now, end - 1e-3), zone) is not None
    assert time_windows.ends_after(None, now, seconds, zone) == now + seconds


def test_clock_change_changes_window_length() -> None:
    window = time_windows.parse_window("22:00-07:00")
    for evening, length in (("2026-03-28 22:00", 8), ("2026-10-24 22:00", 10), ("2026-11-24 22:00", 9)):
        begins = at(evening)
        closes = time_windows.until(window, begins, BERLIN)
        assert closes == begins + length * 3600
        assert time_windows.ends_after(window, begins, length * 3600.0, BERLIN) == closes
        assert (
            time_windows.ends_after(window, begins, length * 3600.0 + 60, BERLIN)
            == time_windows.opens(window, closes, BERLIN) + 60
        )


@pytest.mark.parametrize(
    ("text", "asked", "due"),
    [
        ("07:30", "2026-11-25 22:00", "2026-11-26 07:30"),
        ("07:30", "2026-11-25 07:29", "2026-11-25 07:30"),
        ("07:30", "2026-11-25 07:30", "2026-11-26 07:30"),
        ("2026-12-24 18:00", "2026-11-25 22:00", "2026-12-24 18:00"),
        ("2026-11-01T6:05", "2026-11-25 22:00", "2026-11-01 06:05"),
    ],
)
def test_due_time_is_next_occurrence(text: str, asked: str, due: str) -> None:
    assert time_windows.due_at(time_windows.parse_due(text), at(asked), BERLIN) == at(due)


@pytest.mark.parametrize("text", ["", "tomorrow", "2026-13-01 07:00", "2026-02-30 07:00", "2026-12-24", "24.12. 18:00"])
def test_invalid_due_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a time such as"):
        time_windows.parse_due(text)
