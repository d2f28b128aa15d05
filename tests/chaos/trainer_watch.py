"""Reads the process table many times a second to detect two trainers of one job."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

EVERY_S = 0.05
PROC = Path("/proc")


class TrainerWatch:
    """Reads the process table in a thread."""

    def __init__(self, home: Path) -> None:
        """Watch the trainers of a home's jobs."""
        self._home = str(home)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, name="trainer-watch")
        self.duplicates: list[str] = []  # job folders and pids

    def trainer(self, job_dir: Path) -> int | None:
        """Return the pid of a job's trainer; None if none runs."""
        return next(iter(trainers(self._home).get(str(job_dir), ())), None)

    def _look(self) -> None:
        while not self._over.wait(EVERY_S):
            for job_dir, pids in trainers(self._home).items():
                if len(pids) > 1:
                    self.duplicates.append(f"{time.time():.2f}: {job_dir}: {sorted(pids)}")

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the thread."""
        self._over.set()
        self._thread.join()


def trainers(home: str) -> dict[str, set[int]]:
    """Return the pids of the running trainers of a home, by job folder. A fork before its exec does not count."""
    by_folder: dict[str, set[int]] = defaultdict(set)
    for pid, words in _command_lines():
        if "workers.mlx.train" in words:
            job_dir = words[words.index("workers.mlx.train") + 1 :][:1]
            if job_dir and job_dir[0].startswith(home):
                by_folder[job_dir[0]].add(pid)
    for pids in by_folder.values():
        if len(pids) > 1:
            pids -= {pid for pid in pids if _parent(pid) in pids or not _lives(pid)}
    return by_folder


def _command_lines() -> Iterator[tuple[int, list[str]]]:
    """Yield pid and command line of every process; from /proc if it exists, because psutil takes ten times longer."""
    if not PROC.is_dir():
        for process in psutil.process_iter(["cmdline"]):
            yield process.pid, process.info["cmdline"] or []
        return
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                raw = (entry / "cmdline").read_bytes()
                yield int(entry.name), raw.decode(errors="replace").split("\0")


def _parent(pid: int) -> int | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        return int(psutil.Process(pid).ppid())
    return None


def _lives(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False
