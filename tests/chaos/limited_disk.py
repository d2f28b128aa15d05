"""A small disk that the test can fill and free, or a limit with the same effect.

Root on Linux gets a tmpfs. Other users on Linux get a limit on the size of files (RLIMIT_FSIZE by prlimit). On other
systems the fault is skipped.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.harness import processes_of

DISK_BYTES = 512 << 20
"""lq resumes with 64 MiB free; the rest is for reports and adapters of finished rounds."""

LONGEST_FILE_BYTES = 4096
REFILL_S = 0.02
MARGIN_BYTES = 1 << 20
"""Filled page by page, because other processes write meanwhile."""


class LimitedDisk:
    """A folder for all files of the test; its `home` may be on a small disk."""

    def __init__(self, folder: Path, *, disk: Path | None) -> None:
        """Use `limited_disk`.

        Args:
            disk: mount point of the small disk; None without one.
        """
        self.folder, self._disk = folder, disk
        self.home = (disk or folder) / "home"

    @property
    def method(self) -> str:
        """How the disk is filled, or why it cannot be."""
        if self._disk is not None:
            return f"tmpfs of {DISK_BYTES >> 20} MiB, filled"
        if sys.platform == "linux":
            return f"RLIMIT_FSIZE {LONGEST_FILE_BYTES} on every process of the home"
        return "skipped: neither mount nor prlimit"

    @property
    def can_fill(self) -> bool:
        """Whether the disk can be filled."""
        return self._disk is not None or sys.platform == "linux"

    def full_for(self, seconds: float) -> None:
        """Keep the disk full for some seconds."""
        if self._disk is not None:
            self._fill(self._disk / "filler", seconds)
        else:
            self._limit(time.monotonic() + seconds)

    def _fill(self, filler: Path, seconds: float) -> None:
        """Fill the disk, and fill what lq frees meanwhile."""
        try:
            with filler.open("wb", buffering=0) as file:
                os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(filler.parent).free - MARGIN_BYTES))
                file.seek(0, os.SEEK_END)
                _write_until_full(file.fileno())
                until = time.monotonic() + seconds
                while time.monotonic() < until:
                    _write_until_full(file.fileno())
                    time.sleep(REFILL_S)
        finally:
            filler.unlink()

    def _limit(self, until: float) -> None:
        """Limit all processes, also new ones; then remove the limit."""
        try:
            while time.monotonic() < until:
                self._limit_all(LONGEST_FILE_BYTES)
                time.sleep(REFILL_S)
        finally:
            self._limit_all(None)
            self._limit_all(None)  # again, for a process that was just started

    def _limit_all(self, longest: int | None) -> None:
        if sys.platform == "linux":
            for process in processes_of(self.home):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
                    soft = hard if longest is None else longest
                    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (soft, hard))

    def keep(self, name: str) -> Path:
        """Copy the home to a folder that stays after this run, and return the folder."""
        kept = Path(tempfile.gettempdir()) / f"lq-chaos-{os.getpid()}-{name}"
        shutil.copytree(self.home, kept, dirs_exist_ok=True, symlinks=True)
        return kept


@contextlib.contextmanager
def limited_disk(folder: Path) -> Iterator[LimitedDisk]:
    """Mount a small disk in an existing folder, if this machine allows it."""
    disk = folder / "disk"
    disk.mkdir()
    if not _mounted(disk):
        yield LimitedDisk(folder, disk=None)
        return
    try:
        yield LimitedDisk(folder, disk=disk)
    finally:
        subprocess.run(["umount", disk], check=True)


def _mounted(disk: Path) -> bool:
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    options = f"size={DISK_BYTES},mode=0700"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], capture_output=True, check=False)
    return done.returncode == 0


def _write_until_full(descriptor: int) -> None:
    """Write until the last page of the disk is full."""
    size = 1 << 20
    while size >= 1 << 10:
        try:
            os.write(descriptor, bytes(size))
        except OSError:
            size //= 2
