"""The stall watch: the limit of each phase."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.model.spec import StallLimits
from jobs.policies.stall import deadline, stalled

LIMITS = StallLimits()


def allowed(
    phase: str,
    *,
    limits: StallLimits = LIMITS,
    intervals: list[float] | None = None,
    slowest_row_s: float | None = None,
    rows: int | None = None,
) -> float:
    return deadline(phase, limits=limits, intervals=intervals or [], slowest_row_s=slowest_row_s, rows=rows)


@pytest.mark.parametrize(
    ("phase", "seconds"),
    [
        ("load", 1800),
        ("tokenize", 1800),
        ("reference", 3600),
        ("probe", 1200),
        ("train", 1200),  # before three reports
        ("validate", 3600),  # before the first one
        ("test", 3600),
        ("save", 300),
    ],
)
def test_initial_limit_of_each_phase(phase: str, seconds: float) -> None:
    assert allowed(phase) == seconds


@pytest.mark.parametrize(
    ("intervals", "seconds"),
    [
        ([10.0, 10.0], 1200.0),  # two are not enough
        ([10.0, 10.0, 10.0], 90.0),  # minimum
        ([20.0, 40.0, 20.0], 240.0),  # six times the slowest
        ([1.0, 2.0, 600.0], 900.0),  # maximum
        ([600.0] + [20.0] * 20, 120.0),  # only the last twenty count
        ([20.0] * 19 + [600.0], 900.0),
    ],
)
def test_train_limit_is_six_slowest_reports(intervals: list[float], seconds: float) -> None:
    assert allowed("train", intervals=intervals) == seconds


@pytest.mark.parametrize(
    ("row_s", "rows", "seconds"), [(0.5, 100, 300.0), (0.01, 100, 180.0), (10.0, 1000, 3600.0), (1.0, None, 3600.0)]
)
def test_validation_limit_is_six_slowest(row_s: float, rows: int | None, seconds: float) -> None:
    assert allowed("validate", slowest_row_s=row_s, rows=rows) == seconds


def test_small_validation_limit_applies() -> None:
    assert allowed("validate", limits=StallLimits(validation=60.0), slowest_row_s=0.01, rows=10) == 60.0


@given(
    phase=st.sampled_from(["load", "tokenize", "probe", "train", "validate", "test", "save", "another"]),
    intervals=st.lists(st.floats(0, 1e6), max_size=30),
    row_s=st.none() | st.floats(0, 1e4),
    rows=st.none() | st.integers(1, 10**6),
)
def test_every_phase_has_a_limit(phase: str, intervals: list[float], row_s: float | None, rows: int | None) -> None:
    assert 90 <= allowed(phase, intervals=intervals, slowest_row_s=row_s, rows=rows) <= 3600


def test_stall_is_past_the_limit() -> None:
    assert stalled("train", silent_s=90.0, deadline_s=90.0) is None
    found = stalled("train", silent_s=90.6, deadline_s=90.0)
    assert found is not None
    assert all(fact in found for fact in ("phase train", "91 s", "90 s"))
