"""Numbers, sizes, durations and times as text."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone

import pytest

from jobs.model.text import NONE, counted, duration, listed, percent, size
from orchestrator.formatting.text import figure, loss, printable, short_duration, short_loss, short_time, timestamp

BERLIN = timezone(timedelta(hours=1))
FRIDAY = datetime(2026, 11, 27, 22, 0, tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("seconds", "long", "short"),
    [
        (None, NONE, NONE),
        (0, "0 s", "0s"),
        (4.23, "4.2 s", "4s"),
        (59, "59 s", "59s"),
        (252, "4 min 12 s", "4m12"),
        (600, "10 min", "10m"),
        (29_880, "8 h 18 min", "8h18"),
        (183_600, "2 d 3 h", "2d03"),
    ],
)
def test_durations_have_two_forms(seconds: float | None, long: str, short: str) -> None:
    assert (duration(seconds), short_duration(seconds)) == (long, short)


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, NONE), (0, "0 B"), (999, "999 B"), (12_345, "12.3 kB"), (250e6, "250 MB"), (4.174e9, "4.17 GB")],
)
def test_sizes_have_three_digits(count: float | None, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("value", "long", "short"),
    [(None, NONE, NONE), (1.23456, "1.2346", "1.235"), (0.00012, "1.20e-04", "0.000"), (math.nan, "nan", "nan")],
)
def test_losses_have_two_forms(value: float | None, long: str, short: str) -> None:
    assert (loss(value), short_loss(value)) == (long, short)


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        (0, "22:00"),
        (9, "07:00"),  # the morning after
        (15, "Sat 13:00"),
        (24, "Sat 22:00"),
        (-26, "Thu 20:00"),
        (24 * 10, "7 Dec 22:00"),
        (24 * 60, "2027-01-26"),
    ],
)
def test_short_time_names_the_day_if_needed(hours: float, text: str) -> None:
    now = FRIDAY.timestamp()
    assert short_time(now + hours * 3600, now, BERLIN) == text


def test_timestamp_has_an_offset() -> None:
    assert timestamp(FRIDAY.timestamp(), BERLIN) == "2026-11-27 22:00:00 +0100"


def test_words_of_counts_and_lists() -> None:
    assert [counted(1, "row"), counted(15_000, "row")] == ["1 row", "15,000 rows"]
    assert [listed([3]), listed([3, 5, 8]), listed("ab", "or")] == ["3", "3, 5 and 8", "a or b"]
    assert [percent(0.00598), percent(None)] == ["0.598 %", NONE]
    assert [figure(0.8531, "it/s"), figure(1812.4, "tokens/s")] == ["0.853 it/s", "1,812 tokens/s"]
    assert printable("a\x1b[2Jb") == "a [2Jb"
