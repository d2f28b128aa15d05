"""Pruning of checkpoints, and what a killed deletion leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from jobs.model.job_dir import JobDir
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec, Keep, LqSpec
from tests.unit.workers.tensor_files import state_at
from workers.checkpoints import storage
from workers.checkpoints.pruning import kept_adapters, prune
from workers.checkpoints.state import CheckpointState

SPEC = JobSpec(iters=100, lq=LqSpec(keep=Keep(last=2, best=1, milestones="50%")))
RUN_PLAN = RunPlan.requested(SPEC)


def save(folder: JobDir, iteration: int, loss: float | None = None) -> None:
    def fill(where: Path) -> CheckpointState:
        weights = {"weights": np.full((4,), iteration, np.float32)}
        save_file(weights, where / storage.ADAPTERS)
        save_file(weights, where / storage.OPTIMIZER)
        return state_at(iteration, examples=iteration * SPEC.batch_size, loss=loss)

    storage.write(folder.checkpoints, iteration, fill)


def left(folder: JobDir) -> list[int]:
    return [checkpoint.iteration for checkpoint in storage.listed(folder.checkpoints)]


@pytest.fixture
def job_dir(tmp_path: Path) -> JobDir:
    """Create a run of ten checkpoints, pruned after each of them."""
    folder = JobDir(tmp_path)
    for iteration in range(10, 101, 10):
        save(folder, iteration, loss=1.0 if iteration == 30 else 2.0)
        prune(folder, SPEC, RUN_PLAN)
    return folder


def test_keeps_best_last_and_milestones(job_dir: JobDir) -> None:
    assert left(job_dir) == [30, 90, 100]
    assert kept_adapters(job_dir) == {50, 100}
    assert sorted(path.name for path in job_dir.checkpoints.iterdir()) == [
        "step-0000030",
        "step-0000090",
        "step-0000100",
    ]


def test_milestone_has_checkpoint_weights(job_dir: JobDir) -> None:
    final = job_dir.checkpoints / "step-0000100" / storage.ADAPTERS
    assert (job_dir.adapters / "0000100_adapters.safetensors").samefile(final)


def test_pruning_twice_changes_nothing(job_dir: JobDir) -> None:
    prune(job_dir, SPEC, RUN_PLAN)
    assert left(job_dir) == [30, 90, 100]
    assert kept_adapters(job_dir) == {50, 100}


def test_invalid_newest_prevents_pruning(tmp_path: Path) -> None:
    folder = JobDir(tmp_path)
    for iteration in (10, 20, 30, 40):
        save(folder, iteration)
    (folder.checkpoints / "step-0000040" / storage.OPTIMIZER).write_bytes(b"torn")
    assert prune(folder, SPEC, RUN_PLAN) == []
    assert left(folder) == [10, 20, 30, 40]


def test_killed_deletion_is_swept(job_dir: JobDir) -> None:
    half = job_dir.checkpoints / ".step-0000090.pruned"
    (job_dir.checkpoints / "step-0000090").rename(half)
    assert left(job_dir) == [30, 100]
    storage.sweep(job_dir.checkpoints)
    assert not half.exists()


def test_killed_replacement_is_undone(job_dir: JobDir) -> None:
    newest = job_dir.checkpoints / "step-0000100"
    newest.rename(job_dir.checkpoints / ".step-0000100.replaced")
    storage.sweep(job_dir.checkpoints)
    assert newest.is_dir()
    storage.verify(storage.Checkpoint(path=newest, iteration=100))
