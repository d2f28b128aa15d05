"""How long a run will take, by what earlier runs showed."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.estimates.run_time import OTHER_SPREAD, Pace, Seen, left, pace_from
from jobs.model.spec import JobSpec

PACE = Pace(it_s=2.0, start_s=20.0, validation_s=5.0, checkpoint_s=1.0, spread=1.1, because="job 1")
SEEN = Seen(job_id=1, it_s=2.0, tokens=400.0, checkpointing=False, start_s=20.0, validation_s=5.0, checkpoint_s=1.0)


def spec(**keys: Any) -> JobSpec:
    return JobSpec(**{"iters": 1000, "steps_per_eval": 200, "save_every": 100} | keys)


@pytest.mark.parametrize(
    ("keys", "more", "seconds"),
    [
        ({}, {}, 20 + 500 + 6 * 5 + 10),
        ({"steps_per_eval": 300}, {}, 20 + 500 + 5 * 5 + 10),
        ({"val_batches": 0}, {}, 20 + 500 + 10),
        ({}, {"validates": False}, 20 + 500 + 10),
        ({}, {"iteration": 500}, 20 + 250 + 3 * 5 + 5),
        ({}, {"iteration": 500, "running": True}, 250 + 3 * 5 + 5),
        ({}, {"iteration": 1000, "running": True}, 0),
        ({"save_every": 150}, {}, 20 + 500 + 6 * 5 + 10),  # six, and those that validations at 200, 400, 800, 1000 keep
        ({"lq": {"segment": 300}}, {}, 4 * 20 + 500 + 6 * 5 + 10),
        ({"lq": {"segment": 300}}, {"iteration": 500, "running": True}, 20 + 250 + 3 * 5 + 5),
        ({"save_every": 5000, "lq": {"checkpoint": {"every": "100s"}}}, {}, 20 + 500 + 30 + 5),
    ],
)
def test_what_is_left_of_a_run(keys: dict[str, Any], more: dict[str, Any], seconds: float) -> None:
    found = left(spec(**keys), PACE, **{"iteration": 0, "validates": True} | more)
    assert found.expected == pytest.approx(seconds)
    assert found.low == pytest.approx(seconds / 1.1)
    assert found.high == pytest.approx(seconds * 1.1)


def test_a_model_that_never_ran_has_no_pace() -> None:
    assert pace_from([], tokens=100.0, checkpointing=False) is None


def test_other_settings_are_scaled_by_their_tokens_and_the_range_is_wide() -> None:
    found = pace_from([SEEN], tokens=800.0, checkpointing=False)
    assert found is not None
    assert (found.it_s, found.start_s, found.spread) == (1.0, 20.0, OTHER_SPREAD)
    assert found.because == "job 1 with this model and other settings"


def test_checkpointing_takes_a_third_more() -> None:
    slower = pace_from([SEEN], tokens=400.0, checkpointing=True)
    same = pace_from([dataclasses.replace(SEEN, checkpointing=True)], tokens=400.0, checkpointing=True)
    assert slower is not None
    assert same is not None
    assert slower.it_s == pytest.approx(2.0 / 1.33)
    assert same.it_s == pytest.approx(2.0)


@given(st.integers(1, 10_000), st.integers(0, 10_000), st.integers(1, 500))
def test_the_further_a_run_is_the_less_is_left(iters: int, done: int, more: int) -> None:
    asked = spec(iters=iters)
    before, after = (left(asked, PACE, iteration=at, validates=True) for at in (done, done + more))
    assert after.expected <= before.expected
