"""The rehearsing child by itself: where it takes a run up, on which stage, and what it measures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.model import run_plan as run_plans
from jobs.model.events import Event, Kind
from jobs.model.run_plan import RunPlan
from jobs.policies.exits import DONE
from orchestrator.demo.tiny_model import build_data
from tests.harness import FIRST_EVER_S, Workshop
from tests.mlx.training import Training

pytestmark = pytest.mark.timeout(500, func_only=True)


def rehearsed(training: Training, *, at: int) -> dict[str, Any]:
    """Rehearse, holding the child's stdin as whoever waits for it does, and return what it measured."""
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
            assert child.wait(FIRST_EVER_S) == DONE, training.story()
        finally:
            child.kill()
    (told,) = [event for event in training.events(Kind.FACT) if event.data["name"] == "dry_run"]
    return dict(told.data["value"])


def losses(events: list[Event]) -> list[float]:
    return [loss for event in events for loss in event.data["losses"]]


def laid_out(tmp_path: Path, workshop: Workshop, **keys: Any) -> Training:
    usual = {
        "model": str(workshop.model),
        "data": str(workshop.data),
        "num_layers": -1,
        "batch_size": 2,
        "iters": 120,
        "grad_accumulation_steps": 4,
        "learning_rate": 1e-3,
    }
    return Training.laid_out(tmp_path / "job", usual | keys)


def test_whole_updates_are_tried_and_timed(tmp_path: Path, workshop: Workshop) -> None:
    training = laid_out(tmp_path, workshop)
    tried = rehearsed(training, at=0)
    assert tried["updates"] >= 2
    assert len(losses(training.events(Kind.PROGRESS))) == 4 * tried["updates"]
    assert tried["first_update_s"] > 0
    assert tried["update_s"] > 0
    assert tried["not_finite"] == []
    assert abs(tried["positions"] / tried["mean_positions"] - 1) < 0.3
    assert tried["validation_rows"] == 8
    assert tried["validation_s"] > 0
    assert tried["test_s"] is None
    assert tried["checkpoint"]["bytes"] > 0
    assert [checkpoint.iteration for checkpoint in [training.newest]] == [4 * tried["updates"]]


@pytest.mark.slow
def test_a_run_is_taken_up_where_it_stands_on_the_stage_that_holds_there(tmp_path: Path, workshop: Workshop) -> None:
    training = laid_out(tmp_path, workshop)
    first = RunPlan.requested(training.spec)
    smaller = first.stages[0].continued(
        120, because="out_of_memory", batch_size=1, grad_accumulation_steps=8, grad_checkpoint=True
    )
    training.job_dir.run_plan.write_text(json.dumps(run_plans.to_json(RunPlan(stages=(*first.stages, smaller)))))
    tried = rehearsed(training, at=60)
    assert tried["iteration"] == 60
    assert training.said(Kind.STARTED)["stage"] == 1
    told = training.events(Kind.PROGRESS)
    assert len(losses(told)) == 4 * tried["updates"], "a loss an iteration, of two rows in two micro-batches"
    assert told[-1].data["iteration"] == 60 + 4 * tried["updates"]


def test_the_test_set_is_timed_where_it_will_be_measured(tmp_path: Path, workshop: Workshop) -> None:
    build_data(tmp_path / "data", train=20, valid=0, test=12)
    tried = rehearsed(laid_out(tmp_path, workshop, data=str(tmp_path / "data"), test=True), at=0)
    assert tried["test_s"] > 0
    assert (tried["validation_s"], tried["validation_rows"]) == (None, 0)
