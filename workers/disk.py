"""Space on the disk, as a run needs it."""

from __future__ import annotations

import shutil

from workers import checkpoints
from workers.job_dir import JobDir

CHECKPOINTS_AHEAD = 3
LEAST_BYTES = 64 << 20
"""For events, logs and the store, where a checkpoint is small or none was written yet."""


def has_space_for(job_dir: JobDir) -> bool:
    """Say whether there is space for a few more checkpoints of the size of the last one."""
    written = checkpoints.listed(job_dir.checkpoints)
    size = sum(path.stat().st_size for path in written[-1].path.iterdir()) if written else 0
    return shutil.disk_usage(job_dir.path).free >= max(CHECKPOINTS_AHEAD * size, LEAST_BYTES)
