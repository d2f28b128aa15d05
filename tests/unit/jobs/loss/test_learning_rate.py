"""The highest learning rate of a run, and how many updates it has."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.loss import learning_rate
from jobs.model.spec import JobSpec, LrSchedule


def spec(schedule: dict[str, Any] | None = None, **keys: Any) -> JobSpec:
    return JobSpec(lr_schedule=schedule, **({"iters": 1000} | keys))


def test_without_a_schedule_the_rate_is_the_one_of_the_file() -> None:
    assert learning_rate.highest(spec(learning_rate=3e-5)) == 3e-5


@pytest.mark.parametrize(
    ("schedule", "keys", "highest"),
    [
        ({"name": "cosine_decay", "arguments": [1e-4, 1000]}, {}, 1e-4),
        ({"name": "cosine_decay", "arguments": [1e-4, 1000], "warmup": 100}, {}, 1e-4),
        # the warm-up lasts longer than the run has updates: 1000 / 20 = 50 of 100
        ({"name": "cosine_decay", "arguments": [1e-4, 1000], "warmup": 100}, {"grad_accumulation_steps": 20}, 4.9e-5),
        ({"name": "linear_schedule", "arguments": [1e-6, 1e-4, 999]}, {}, 1e-4),
        ({"name": "linear_schedule", "arguments": [1e-6, 1e-4, 9990]}, {}, 1e-6 + 0.1 * 9.9e-5),
        ({"name": "exponential_decay", "arguments": [1e-3, 0.9]}, {}, 1e-3),
        ({"name": "exponential_decay", "arguments": [1e-9, 1.01]}, {}, 1e-9 * 1.01**999),
        ({"name": "step_decay", "arguments": [1e-3, 0.5, 100]}, {}, 1e-3),
    ],
)
def test_the_peak_is_the_highest_rate_that_an_update_has(
    schedule: dict[str, Any], keys: dict[str, Any], highest: float
) -> None:
    assert learning_rate.highest(spec(schedule, **keys)) == pytest.approx(highest, rel=1e-6)


@pytest.mark.parametrize(("accumulation", "updates"), [(1, 1000), (8, 125), (3, 333), (1001, 0)])
def test_an_update_is_made_every_so_many_iterations(accumulation: int, updates: int) -> None:
    assert learning_rate.updates(spec(grad_accumulation_steps=accumulation)) == updates


@pytest.mark.parametrize(
    ("schedule", "updates"),
    [
        ({"name": "cosine_decay", "arguments": [1e-4, 900], "warmup": 100}, 1000),
        ({"name": "linear_schedule", "arguments": [1e-4, 1e-6, 500]}, 500),
        ({"name": "exponential_decay", "arguments": [1e-4, 0.9]}, None),
        ({"name": "step_decay", "arguments": [1e-4, 0.9, 10]}, None),
    ],
)
def test_some_schedules_come_to_an_end(schedule: dict[str, Any], updates: int | None) -> None:
    assert learning_rate.planned(LrSchedule(**schedule)) == updates


@given(iters=st.integers(1, 20_000), accumulation=st.integers(1, 64), warmup=st.integers(0, 500))
def test_no_update_of_a_long_run_has_a_rate_much_above_the_highest(iters: int, accumulation: int, warmup: int) -> None:
    schedule = {"name": "cosine_decay", "arguments": [1e-4, 300, 1e-6], "warmup": warmup}
    job = spec(schedule, iters=iters, grad_accumulation_steps=accumulation)
    rate, highest = learning_rate.rate(job), learning_rate.highest(job)
    assert all(rate(step) <= highest * (1 + 1e-9) for step in range(learning_rate.updates(job)))
