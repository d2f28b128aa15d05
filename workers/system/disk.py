"""Free space, the size of folders and the file system that a folder lies on."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from jobs.model.job_dir import JobDir
from jobs.policies.disk import DiskSpace
from workers.checkpoints import storage
from workers.system import processes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mount:
    kind: str  # type as the system names it: ext4, apfs, nfs4, fuse.sshfs
    place: str  # mount point


def space_for(job_dir: JobDir, *, floor: int) -> DiskSpace | None:
    """Read the free space for a job; None if its folder is gone."""
    checkpoint = 0
    with suppress(OSError):
        written = storage.listed(job_dir.checkpoints)
        checkpoint = sum(path.stat().st_size for path in written[-1].path.iterdir()) if written else 0
    try:
        free = shutil.disk_usage(job_dir.path).free
    except OSError:
        return None
    return DiskSpace(free=free, checkpoint=checkpoint, floor=floor)


def used_by(folder: Path) -> int:
    """Return the bytes of all files below a folder; a file with several hard links counts once."""
    sizes = {}
    for path in folder.rglob("*"):
        with suppress(OSError):
            status = path.lstat()
            sizes[status.st_ino] = status.st_size
    return sum(sizes.values())


def mount_of(folder: Path) -> Mount | None:
    """Return the file system of a folder, or of its nearest parent that exists; None if it is unknown."""
    try:
        return nearest(folder.resolve(), [Mount(kind=kind, place=place) for place, kind in processes.mounts()])
    except (OSError, RuntimeError):
        return None


def nearest(folder: Path, mounts: Iterable[Mount]) -> Mount | None:
    """Return the mount with the deepest mount point above a folder; of several at one place the last."""
    depths = {str(place): len(place.parts) for place in (folder, *folder.parents)}
    above = [mount for mount in mounts if mount.place in depths]
    return max(reversed(above), key=lambda mount: depths[mount.place], default=None)
