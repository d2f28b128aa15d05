"""Folders of jobs that are about to be queued: filled first, and named in the transaction that queues the jobs.

So that transaction is short, however many jobs there are. The next submit removes what a killed one left here. A folder
that got its name without its job being recorded gives way to the job that gets its id.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = ".submit-"


@contextmanager
def opened(jobs: Path) -> Iterator[Path]:
    """Make a staging folder in the folder of all jobs, and remove it with what is left in it."""
    for left in jobs.glob(f"{_PREFIX}*"):
        if not _lives(left.name.removeprefix(_PREFIX).partition("-")[0]):
            shutil.rmtree(left, ignore_errors=True)
    path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=jobs))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def moved(folder: Path, jobs: Path, name: str) -> Path:
    """Give a filled folder its name, `<id>-<slug>`, and return it."""
    for left in jobs.glob(f"{name.partition('-')[0]}-*"):
        # no job has this id yet: the folder is of a submit that was killed before its transaction ended
        if left.name == name or (left.is_dir() and _names(left) == _names(folder)):
            shutil.rmtree(left, ignore_errors=True)
    return folder.rename(jobs / name)


def moved_beside(folder: Path, jobs: Path, name: str) -> Path:
    """Give a filled folder its name, with a number if that is taken, and return it."""
    number, free = 1, jobs / name
    while free.exists():
        number += 1
        free = jobs / f"{name}-{number}"
    return folder.rename(free)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _lives(pid: str) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(int(pid), 0)
        except (ValueError, ProcessLookupError):
            return False
    return True
