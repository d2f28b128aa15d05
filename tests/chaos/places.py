"""Where the chaos happens: a small disk of its own that can be filled and freed, or limits that act like one.

Root on Linux gets a tmpfs. Elsewhere on Linux the size of any file the processes of the home write is limited
(RLIMIT_FSIZE, set from outside by prlimit). Where neither can be had, `why_not` says so and the kind is left out.
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
"""lq wants 64 MiB free before it goes on after a full disk; the rest is for reports and adapters of finished rounds."""

LONGEST_FILE_BYTES = 4096
REFILL_S = 0.02
MARGIN_BYTES = 1 << 20
"""Filled page by page, because somebody else takes some of it meanwhile."""


class Place:
    """A folder for everything the harness makes; its `home` may lie on a disk that can be filled."""

    def __init__(self, folder: Path, *, disk: Path | None) -> None:
        """Use `place`.

        Args:
            folder: for everything.
            disk: the small disk, where there is one.
        """
        self.folder, self._disk = folder, disk
        self.home = (disk or folder) / "home"

    @property
    def way(self) -> str:
        """How a full disk is brought about here, or why it cannot be."""
        if self._disk is not None:
            return f"tmpfs of {DISK_BYTES >> 20} MiB, filled"
        if sys.platform == "linux":
            return f"RLIMIT_FSIZE {LONGEST_FILE_BYTES} on every process of the home"
        return "skipped: neither mount nor prlimit here"

    @property
    def can_fill(self) -> bool:
        """Say whether a full disk can be brought about."""
        return self._disk is not None or sys.platform == "linux"

    def full_for(self, seconds: float) -> None:
        """Have the disk full for a while."""
        if self._disk is not None:
            self._fill(self._disk / "filler", seconds)
        else:
            self._limit(time.monotonic() + seconds)

    def _fill(self, filler: Path, seconds: float) -> None:
        """Fill it, and keep it full: what lq frees meanwhile is taken again."""
        try:
            with filler.open("wb", buffering=0) as file:
                os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(filler.parent).free - MARGIN_BYTES))
                file.seek(0, os.SEEK_END)
                _write_all_there_is(file.fileno())
                until = time.monotonic() + seconds
                while time.monotonic() < until:
                    _write_all_there_is(file.fileno())
                    time.sleep(REFILL_S)
        finally:
            filler.unlink()

    def _limit(self, until: float) -> None:
        """Limit whoever lives, and whoever is born meanwhile; lift it from all of them."""
        try:
            while time.monotonic() < until:
                self._limit_all(LONGEST_FILE_BYTES)
                time.sleep(REFILL_S)
        finally:
            self._limit_all(None)
            self._limit_all(None)  # from one that was just being started, too

    def _limit_all(self, longest: int | None) -> None:
        if sys.platform == "linux":
            for process in processes_of(self.home):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    _, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
                    soft = hard if longest is None else longest
                    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (soft, hard))

    def keep(self, name: str) -> Path:
        """Copy the home to where it outlives this run, and say where."""
        kept = Path(tempfile.gettempdir()) / f"lq-chaos-{os.getpid()}-{name}"
        shutil.copytree(self.home, kept, dirs_exist_ok=True, symlinks=True)
        return kept


@contextlib.contextmanager
def place(folder: Path) -> Iterator[Place]:
    """Make a place in a folder, on a small disk where this machine allows one.

    Args:
        folder: must exist.
    """
    disk = folder / "disk"
    disk.mkdir()
    if not _mounted(disk):
        yield Place(folder, disk=None)
        return
    try:
        yield Place(folder, disk=disk)
    finally:
        subprocess.run(["umount", disk], check=True)


def _mounted(disk: Path) -> bool:
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    options = f"size={DISK_BYTES},mode=0700"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], capture_output=True, check=False)
    return done.returncode == 0


def _write_all_there_is(descriptor: int) -> None:
    """Write until nothing fits any more, to the last page."""
    size = 1 << 20
    while size >= 1 << 10:
        try:
            os.write(descriptor, bytes(size))
        except OSError:
            size //= 2
