"""Checkpoints that go: what is left when they went, or were about to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec, Keep, LqSpec
from tests.unit.workers.tensor_files import state_at
from workers.checkpoints import storage
from workers.checkpoints.pruning import kept_adapters, prune
from workers.checkpoints.state import CheckpointState
from workers.files.job_dir import JobDir

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
    """A run of ten checkpoints, pruned as each of them was written."""
    folder = JobDir(tmp_path)
    for iteration in range(10, 101, 10):
        save(folder, iteration, loss=1.0 if iteration == 30 else 2.0)
        prune(folder, SPEC, RUN_PLAN)
    return folder


def test_a_long_run_leaves_the_best_the_last_two_and_its_milestones(job_dir: JobDir) -> None:
    assert left(job_dir) == [30, 90, 100]
    assert kept_adapters(job_dir) == {50, 100}
    assert sorted(path.name for path in job_dir.checkpoints.iterdir()) == [
        "step-0000030",
        "step-0000090",
        "step-0000100",
    ]


def test_a_milestone_is_the_very_adapter_of_its_checkpoint(job_dir: JobDir) -> None:
    final = job_dir.checkpoints / "step-0000100" / storage.ADAPTERS
    assert (job_dir.adapters / "0000100_adapters.safetensors").samefile(final)


def test_pruning_again_changes_nothing(job_dir: JobDir) -> None:
    prune(job_dir, SPEC, RUN_PLAN)
    assert left(job_dir) == [30, 90, 100]
    assert kept_adapters(job_dir) == {50, 100}


def test_nothing_goes_while_the_newest_does_not_verify(tmp_path: Path) -> None:
    folder = JobDir(tmp_path)
    for iteration in (10, 20, 30, 40):
        save(folder, iteration)
    (folder.checkpoints / "step-0000040" / storage.OPTIMIZER).write_bytes(b"torn")
    assert prune(folder, SPEC, RUN_PLAN) == []
    assert left(folder) == [10, 20, 30, 40]


def test_one_that_was_killed_while_it_deleted_leaves_no_half_checkpoint(job_dir: JobDir) -> None:
    half = job_dir.checkpoints / ".step-0000090.pruned"
    (job_dir.checkpoints / "step-0000090").rename(half)
    assert left(job_dir) == [30, 100]
    storage.sweep(job_dir.checkpoints)
    assert not half.exists()


def test_one_that_was_about_to_be_replaced_gets_its_name_back(job_dir: JobDir) -> None:
    newest = job_dir.checkpoints / "step-0000100"
    newest.rename(job_dir.checkpoints / ".step-0000100.replaced")
    storage.sweep(job_dir.checkpoints)
    assert newest.is_dir()
    storage.verify(storage.Checkpoint(path=newest, iteration=100))
