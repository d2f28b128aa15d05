"""Whether there is space for what a run will write next."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.unit.workers.tensor_files import holding
from workers import checkpoints, disk
from workers.job_dir import JobDir


def save(folder: JobDir, iteration: int, size: int) -> None:
    """Write a checkpoint that takes so many bytes without using them: the file has a hole."""

    def fill(where: Path) -> dict[str, Any]:
        (where / checkpoints.OPTIMIZER).write_bytes(holding(b"moments"))
        (where / checkpoints.ADAPTERS).write_bytes(holding(b"weights"))
        return {"examples_seen": iteration, "leg": 0}

    written, _ = checkpoints.write(folder.checkpoints, iteration, fill)
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
