"""`lq plan` learns memory and time from a real run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import Lq, Workshop


@pytest.mark.slow
def test_plan_uses_measured_runs(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    keys = {"lr_schedule": None, "iters": 40}
    first = workshop.job_file(tmp_path / "first.yaml", **keys)
    (unknown,) = lq.json("plan", first)["jobs"]
    assert unknown["time"] is None

    training = lq.submit(first)
    training.wait()
    longer = workshop.job_file(tmp_path / "longer.yaml", **keys | {"iters": 40_000})
    other = workshop.job_file(tmp_path / "other.yaml", **keys | {"batch_size": 4})
    same, scaled = lq.json("plan", longer, other)["jobs"]

    assert same["memory"]["because"] == f"measured in job {training.id}"
    assert same["time"]["because"] == f"job {training.id} with the same settings"
    assert same["time"]["expected_s"] > 40_000 / 10_000, "at most 10,000 iterations per second"
    assert training.job()["status"] == "succeeded"
    assert scaled["start"] == same["end"]
    assert scaled["memory"]["because"].endswith(f"job {training.id}")
    assert scaled["time"]["high_s"] > scaled["time"]["expected_s"] > 1.0, "the start takes a second"
