"""The learning rates that lq checks are those of MLX-LM's schedules."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.tuner.utils import build_schedule

from jobs.loss import learning_rate
from jobs.model.spec import JobSpec


@pytest.mark.parametrize("warmup", [0, 1, 20])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("cosine_decay", [1e-4, 60]),
        ("cosine_decay", [1e-4, 200, 1e-6]),
        ("linear_schedule", [1e-4, 1e-6, 40]),
        ("linear_schedule", [1e-6, 1e-4, 400]),
        ("exponential_decay", [1e-4, 0.97]),
        ("step_decay", [1e-4, 0.5, 30]),
    ],
)
def test_rates_equal_those_of_mlx(name: str, arguments: list[float], warmup: int) -> None:
    schedule: dict[str, Any] = {"name": name, "arguments": arguments, "warmup": warmup, "warmup_init": 1e-7}
    spec = JobSpec(iters=100, lr_schedule=schedule)
    mine, theirs = learning_rate.rate(spec), build_schedule(schedule)
    rates = [float(theirs(mx.array(step)).item()) for step in range(100)]
    assert [mine(step) for step in range(100)] == pytest.approx(rates, rel=1e-5, abs=1e-9)
    assert learning_rate.highest(spec) == pytest.approx(max(rates), rel=1e-5)
