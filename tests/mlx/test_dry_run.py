"""The dry-run process by itself: its position, its stage, and what it measures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.model.events import Kind
from jobs.model.run_plan import RunPlan
from jobs.policies.exits import DONE
from orchestrator.demo.tiny_model import build_data
from tests.harness import FIRST_EVER_S, Workshop
from tests.mlx.training import Training

pytestmark = pytest.mark.timeout(500, func_only=True)


def dry_run(training: Training, *, at: int) -> dict[str, Any]:
    """Do a dry run with an open stdin, as its parent does, and return what it measured."""
    command = [sys.executable, "-P", "-m", "workers.mlx.dry_run", str(training.job_dir.path), "--attempt", "1"]
    with (
        training.job_dir.log.open("a") as log,
        subprocess.Popen(
            [*command, "--at", str(at)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=training.job_dir.path,
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
            start_new_session=True,
        ) as child,
    ):
        try:
            assert child.wait(FIRST_EVER_S) == DONE, training.log_tail()
        finally:
            child.kill()
    [fact] = [event.data for event in training.events(Kind.FACT) if event.data["name"] == "dry_run"]
    return dict(fact["value"])


def trained(training: Training) -> int:
    return sum(len(report["losses"]) for report in training.reports())


def create(tmp_path: Path, workshop: Workshop, **keys: Any) -> Training:
    usual = {
        "model": str(workshop.model),
        "data": str(workshop.data),
        "num_layers": -1,
        "batch_size": 2,
        "iters": 120,
        "grad_accumulation_steps": 4,
        "learning_rate": 1e-3,
    }
    return Training.create(tmp_path / "job", usual | keys)


def test_whole_updates_are_timed(tmp_path: Path, workshop: Workshop) -> None:
    training = create(tmp_path, workshop)
    result = dry_run(training, at=0)
    assert result["updates"] >= 2
    assert trained(training) == 4 * result["updates"]
    assert result["first_update_s"] > 0
    assert result["update_s"] > 0
    assert result["not_finite"] == []
    assert abs(result["positions"] / result["mean_positions"] - 1) < 0.3
    assert result["validation_rows"] == 8
    assert result["validation_s"] > 0
    assert result["test_s"] is None
    assert result["checkpoint"]["bytes"] > 0
    assert training.newest.iteration == 4 * result["updates"]


@pytest.mark.slow
def test_position_selects_the_stage(tmp_path: Path, workshop: Workshop) -> None:
    training = create(tmp_path, workshop)
    first = RunPlan.requested(training.spec).stages[0]
    smaller = first.continued(
        120, because="out_of_memory", batch_size=1, grad_accumulation_steps=8, grad_checkpoint=True
    )
    training.write_run_plan(RunPlan(stages=(first, smaller)))
    result = dry_run(training, at=60)
    assert result["iteration"] == 60
    assert training.only(Kind.STARTED)["stage"] == 1
    assert trained(training) == 4 * result["updates"], "a loss per iteration, of two micro-batches"
    assert training.reports()[-1]["iteration"] == 60 + 4 * result["updates"]


def test_test_set_is_timed_if_used(tmp_path: Path, workshop: Workshop) -> None:
    build_data(tmp_path / "data", train=20, valid=0, test=12)
    result = dry_run(create(tmp_path, workshop, data=str(tmp_path / "data"), test=True), at=0)
    assert result["test_s"] > 0
    assert (result["validation_s"], result["validation_rows"]) == (None, 0)
