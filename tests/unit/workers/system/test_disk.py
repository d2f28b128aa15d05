"""Free space for a job, and the file system of a folder."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from jobs.model.job_dir import JobDir
from tests.unit.workers.tensor_files import holding, state_at
from workers.checkpoints import storage
from workers.checkpoints.state import CheckpointState
from workers.system import disk
from workers.system.disk import Mount


def test_space_has_size_of_last_checkpoint(tmp_path: Path) -> None:
    def fill(where: Path) -> CheckpointState:
        (where / storage.OPTIMIZER).write_bytes(holding(b"moments"))
        (where / storage.ADAPTERS).write_bytes(holding(b"weights"))
        return state_at(1)

    space = disk.space_for(JobDir(tmp_path), floor=5)
    assert space is not None
    assert (space.checkpoint, space.floor) == (0, 5)
    assert 0 < space.free <= shutil.disk_usage(tmp_path).total
    for iteration, size in ((10, 3 << 20), (20, 1 << 20)):
        written, _ = storage.write(JobDir(tmp_path).checkpoints, iteration, fill)
        with written.optimizer.open("r+b") as file:
            file.truncate(size)
    space = disk.space_for(JobDir(tmp_path), floor=0)
    assert space is not None
    assert 1 << 20 < space.checkpoint < 2 << 20


def test_space_of_missing_folder_is_unknown(tmp_path: Path) -> None:
    assert disk.space_for(JobDir(tmp_path / "gone"), floor=0) is None


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/", "ext4"),
        ("/root/.local/share/lq", "ext4"),
        ("/home/me/lq", "nfs4"),
        ("/home/me/a disk/lq", "fuse.sshfs"),
        ("/home/me/a diskette", "nfs4"),
        ("/data/x", "tmpfs"),
    ],
)
def test_deepest_and_last_mount_counts(folder: str, kind: str) -> None:
    mounts = [
        Mount(kind="ext4", place="/"),
        Mount(kind="nfs4", place="/home"),
        Mount(kind="fuse.sshfs", place="/home/me/a disk"),
        Mount(kind="ext4", place="/data"),
        Mount(kind="tmpfs", place="/data"),
    ]
    mount = disk.nearest(Path(folder), mounts)
    assert mount is not None
    assert mount.kind == kind
    assert disk.nearest(Path(folder), []) is None


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_mount_of_this_machine(tmp_path: Path) -> None:
    assert disk.mount_of(Path("/proc")) == Mount(kind="proc", place="/proc")
    assert disk.mount_of(Path("/dev/shm/nothing/here")) == Mount(kind="tmpfs", place="/dev/shm")
    link = tmp_path / "link"
    link.symlink_to("/dev/shm")
    mount = disk.mount_of(link / "lq")
    assert mount is not None
    assert mount.kind == "tmpfs"
