"""The files of $LQ_HOME (docs/reference/file-formats.md)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from jobs.model.errors import HomeUnusable

VARIABLE = "LQ_HOME"


class _Below:
    """A path below the home."""

    def __init__(self, *parts: str) -> None:
        self._parts = parts

    def __get__(self, home: Home, owner: type[Home]) -> Path:
        return home.path.joinpath(*self._parts)


@dataclasses.dataclass(frozen=True)
class Home:
    """The home folder."""

    path: Path

    settings = _Below("settings.yaml")  # of this machine
    store = _Below("lq.db")  # the database: the source of truth
    wakeup = _Below("queue.db")  # Huey's database, the wake-up queue
    worker_lock = _Below("worker.lock")  # of the one worker of this home
    device_lock = _Below("device.lock")  # of a verb that uses the device, such as lq chat; then no job starts
    worker_log = _Below("worker.log")
    start_log = _Below("worker.start.log")  # the stderr of a detached worker
    jobs = _Below("jobs")  # one folder for each job
    inbox = _Below("inbox")  # lq submits job files that you put here
    cache = _Below("cache")  # tokenized data for all jobs; may be deleted at any time
    lengths = _Below("cache", "lengths")  # token counts of the rows of data files; may be deleted

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Home:
        """Return the home of LQ_HOME, otherwise the platform's user data folder."""
        named = environment.get(VARIABLE)
        if named:
            return cls(Path(named).expanduser().absolute())
        import platformdirs

        return cls(Path(platformdirs.user_data_dir("lq", appauthor=False)))

    def ensure(self) -> None:
        """Create the folders, readable by this user only; raise HomeUnusable if that fails."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.jobs.mkdir(exist_ok=True, mode=0o700)
            with suppress(FileExistsError):  # a file of this name is reported by the inbox
                self.inbox.mkdir(mode=0o700)
            if self.path.stat().st_mode & 0o077:
                self.path.chmod(0o700)
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise HomeUnusable(f"{self.path}: {reason}; choose another folder with {VARIABLE}") from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise HomeUnusable(f"{self.path}: not writable; choose another folder with {VARIABLE}")
