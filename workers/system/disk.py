"""Space on the disk, as a run needs it."""

from __future__ import annotations

import dataclasses
import shutil
from contextlib import suppress
from pathlib import Path

from jobs.model.job_dir import JobDir
from workers.checkpoints import storage

CHECKPOINTS_AHEAD = 3
LEAST_BYTES = 64 << 20
"""For events, logs and the store, where a checkpoint is small or none was written yet."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Space:
    """What is free, and what must stay free while a job trains."""

    free: int  # bytes
    floor: int  # bytes: three checkpoints of the size of the last one, and at least what the machine's settings say
    checkpoint: int  # bytes of the last checkpoint, 0 where none was written yet

    @property
    def enough(self) -> bool:
        """Whether a job may go on."""
        return self.free >= self.floor

    @property
    def enough_to_begin(self) -> bool:
        """Whether a job that waits may go on: one checkpoint more, or it would soon wait again."""
        return self.free >= self.floor + self.checkpoint


def space_for(job_dir: JobDir, *, floor: int) -> Space | None:
    """Look at the disk that a job's folder lies on.

    Args:
        job_dir: whose.
        floor: bytes that must stay free, whatever a checkpoint takes.

    Returns:
        None where the folder is gone.
    """
    size = 0
    with suppress(OSError):
        written = storage.listed(job_dir.checkpoints)
        size = sum(path.stat().st_size for path in written[-1].path.iterdir()) if written else 0
    try:
        free = shutil.disk_usage(job_dir.path).free
    except OSError:
        return None
    return Space(free=free, floor=max(CHECKPOINTS_AHEAD * size, LEAST_BYTES, floor), checkpoint=size)


def has_space_for(job_dir: JobDir, *, floor: int = 0) -> bool:
    """Say whether a job may go on, as far as space goes; one whose folder is gone is stopped by that alone."""
    space = space_for(job_dir, floor=floor)
    return space is None or space.enough


def used_by(folder: Path) -> int:
    """Return the bytes of the files below a folder, those with several names once."""
    found = {}
    for path in folder.rglob("*"):
        with suppress(OSError):
            status = path.lstat()
            found[status.st_ino] = status.st_size
    return sum(found.values())
