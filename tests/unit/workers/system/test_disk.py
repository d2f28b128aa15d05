"""Whether there is space for what a run will write next."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from tests.unit.workers.tensor_files import holding, state_at
from workers.checkpoints import storage
from workers.checkpoints.state import CheckpointState
from workers.files.job_dir import JobDir
from workers.system import disk


def save(folder: JobDir, iteration: int, size: int) -> None:
    """Write a checkpoint that takes so many bytes without using them: the file has a hole."""

    def fill(where: Path) -> CheckpointState:
        (where / storage.OPTIMIZER).write_bytes(holding(b"moments"))
        (where / storage.ADAPTERS).write_bytes(holding(b"weights"))
        return state_at(iteration, examples=iteration)

    written, _ = storage.write(folder.checkpoints, iteration, fill)
    with written.optimizer.open("r+b") as file:
        file.truncate(size)


def test_a_job_without_checkpoints_needs_little(tmp_path: Path) -> None:
    folder = JobDir(tmp_path)
    free = shutil.disk_usage(tmp_path).free
    assert disk.has_space_for(folder) == (free >= disk.LEAST_BYTES)


def test_three_more_checkpoints_like_the_last_must_fit(tmp_path: Path) -> None:
    folder = JobDir(tmp_path)
    free = shutil.disk_usage(tmp_path).free
    save(folder, 10, 2 * free)
    assert not disk.has_space_for(folder)
    save(folder, 20, free // 2)  # more than a third
    assert not disk.has_space_for(folder)
    save(folder, 30, free // 8)
    assert disk.has_space_for(folder)


def test_what_the_machine_wants_free_counts_too(tmp_path: Path) -> None:
    folder = JobDir(tmp_path)
    free = shutil.disk_usage(tmp_path).free
    assert not disk.has_space_for(folder, floor=2 * free)
    assert disk.has_space_for(folder, floor=free // 2)


def test_one_that_waits_goes_on_with_a_checkpoint_to_spare(tmp_path: Path) -> None:
    save(JobDir(tmp_path), 10, 1 << 20)
    space = disk.space_for(JobDir(tmp_path), floor=0)
    assert space is not None
    assert space.checkpoint > 1 << 20
    at_the_floor = dataclasses.replace(space, free=space.floor)
    assert at_the_floor.enough
    assert not at_the_floor.enough_to_begin
    assert dataclasses.replace(space, free=space.floor + space.checkpoint).enough_to_begin


def test_a_folder_that_is_gone_is_no_question_of_space(tmp_path: Path) -> None:
    assert disk.space_for(JobDir(tmp_path / "gone"), floor=0) is None
    assert disk.has_space_for(JobDir(tmp_path / "gone"))
