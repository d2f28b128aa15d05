"""Folders of jobs that are about to be queued: filled out of sight, named in the transaction that queues the jobs.

So that transaction is short, however many jobs there are. What a submit that was killed left here is removed by the
next one; a folder that got its name without its job being recorded makes room for the job that gets its id.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = ".submit-"


class StagingFolder:
    """The place of one submit."""

    def __init__(self, path: Path) -> None:
        """Begin empty.

        Args:
            path: a folder that is there.
        """
        self._path = path
        self._filled = 0

    def filled(self, fill: Callable[[Path], None]) -> Path:
        """Return a new folder, with what `fill` put into it."""
        self._filled += 1
        folder = self._path / str(self._filled)
        folder.mkdir(mode=0o700)
        fill(folder)
        return folder


@contextmanager
def opened(jobs: Path) -> Iterator[StagingFolder]:
    """Give a place to fill folders in; what is left in it at the end goes.

    Args:
        jobs: where the folders of all jobs lie.
    """
    for left in jobs.glob(f"{_PREFIX}*"):
        if not _lives(left.name.removeprefix(_PREFIX).partition("-")[0]):
            shutil.rmtree(left, ignore_errors=True)
    path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=jobs))
    try:
        yield StagingFolder(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


def moved(folder: Path, jobs: Path, name: str) -> Path:
    """Give a filled folder its name, and return it.

    Args:
        folder: from a staging_folder.
        jobs: where the folders of all jobs lie.
        name: `<id>-<slug>`.
    """
    for left in jobs.glob(f"{name.partition('-')[0]}-*"):
        # the id is given to nobody yet: of a submit that was killed before it was recorded, and never ran
        if left.name == name or _same_files(left, folder):
            shutil.rmtree(left, ignore_errors=True)
    return folder.rename(jobs / name)


def moved_beside(folder: Path, jobs: Path, name: str) -> Path:
    """Give a filled folder its name, another one where that is taken, and return it.

    Args:
        folder: from a staging_folder.
        jobs: where the folders of all jobs lie.
        name: `<id>-<slug>`.
    """
    number, free = 1, jobs / name
    while free.exists():
        number += 1
        free = jobs / f"{name}-{number}"
    return folder.rename(free)


def _same_files(one: Path, other: Path) -> bool:
    return one.is_dir() and {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
