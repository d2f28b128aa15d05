"""The time a run has left."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.estimates.estimate import Source
from jobs.estimates.run_time import OTHER_SPREAD, ObservedRun, RunLength, Speed, scaled_speed, time_left
from jobs.model.spec import JobSpec

SPEED = Speed(it_s=2.0, start_s=20.0, validation_s=5.0, checkpoint_s=1.0, because="job 1")
RUN = ObservedRun(
    job_id=1, it_s=2.0, tokens=400.0, checkpointing=False, start_s=20.0, validation_s=5.0, checkpoint_s=1.0
)


def length(**keys: Any) -> RunLength:
    spec = JobSpec(**{"iters": 1000, "steps_per_eval": 200, "save_every": 100} | keys)
    return RunLength.of(spec.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("keys", "more", "seconds"),
    [
        ({}, {}, 20 + 500 + 6 * 5 + 10),
        ({"steps_per_eval": 300}, {}, 20 + 500 + 5 * 5 + 10),
        ({"val_batches": 0}, {}, 20 + 500 + 10),
        ({}, {"iteration": 500}, 20 + 250 + 3 * 5 + 5),
        ({}, {"iteration": 500, "running": True}, 250 + 3 * 5 + 5),
        ({}, {"iteration": 1000, "running": True}, 0),
        ({"iters": 1050}, {"iteration": 1050, "running": True}, 0),
        ({"save_every": 150}, {}, 20 + 500 + 6 * 5 + 10),  # six, and those that validations at 200, 400, 800, 1000 keep
        ({"lq": {"segment": 300}}, {}, 4 * 20 + 500 + 6 * 5 + 10),
        ({"lq": {"segment": 300}}, {"iteration": 500, "running": True}, 20 + 250 + 3 * 5 + 5),
        ({"save_every": 5000, "lq": {"checkpoint": {"every": "100s"}}}, {}, 20 + 500 + 30 + 5),
    ],
)
def test_time_left_counts_all_work(keys: dict[str, Any], more: dict[str, Any], seconds: float) -> None:
    estimate = time_left(length(**keys), SPEED, **{"iteration": 0} | more)
    assert estimate.expected_s == pytest.approx(seconds)
    assert estimate.low_s == pytest.approx(seconds / 1.1)
    assert estimate.high_s == pytest.approx(seconds * 1.1)


def test_no_validations_without_their_time() -> None:
    estimate = time_left(length(), dataclasses.replace(SPEED, validation_s=0.0), iteration=0)
    assert (estimate.validations, estimate.checkpoints) == (0, 10)


def test_test_set_is_measured_three_times() -> None:
    tested = dataclasses.replace(SPEED, test_s=5.0)
    assert time_left(length(), tested, iteration=0).test_s == 15.0
    assert time_left(length(), tested, iteration=10).test_s == 10.0


def test_no_speed_without_observed_runs() -> None:
    assert scaled_speed([], tokens=100.0, checkpointing=False) is None


def test_speed_scales_with_tokens() -> None:
    speed = scaled_speed([RUN], tokens=800.0, checkpointing=False)
    assert speed is not None
    assert (speed.it_s, speed.start_s, speed.spread) == (1.0, 20.0, OTHER_SPREAD)
    assert speed.source is Source.OTHER_SETTINGS


def test_checkpointing_takes_a_third_more() -> None:
    slower = scaled_speed([RUN], tokens=400.0, checkpointing=True)
    same = scaled_speed([dataclasses.replace(RUN, checkpointing=True)], tokens=400.0, checkpointing=True)
    assert slower is not None
    assert same is not None
    assert slower.it_s == pytest.approx(2.0 / 1.33)
    assert same.it_s == pytest.approx(2.0)


@given(st.integers(1, 10_000), st.integers(0, 10_000), st.integers(1, 500))
def test_time_left_only_decreases(iters: int, done: int, more: int) -> None:
    before, after = (time_left(length(iters=iters), SPEED, iteration=at) for at in (done, done + more))
    assert after.expected_s <= before.expected_s
