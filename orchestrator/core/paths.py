"""The files of $LQ_HOME (docs/reference/file-formats.md)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from jobs.model.errors import HomeUnusable

VARIABLE = "LQ_HOME"


@dataclasses.dataclass(frozen=True)
class Home:
    """The home folder."""

    path: Path

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Home:
        """Return the home of LQ_HOME, otherwise the platform's user data folder."""
        named = environment.get(VARIABLE)
        if named:
            return cls(Path(named).expanduser().absolute())
        import platformdirs

        return cls(Path(platformdirs.user_data_dir("lq", appauthor=False)))

    @property
    def settings(self) -> Path:
        """The settings of this machine."""
        return self.path / "settings.yaml"

    @property
    def store(self) -> Path:
        """The database: the source of truth."""
        return self.path / "lq.db"

    @property
    def wakeup(self) -> Path:
        """Huey's database, the wake-up queue."""
        return self.path / "queue.db"

    @property
    def worker_lock(self) -> Path:
        """The lock of the one worker of this home."""
        return self.path / "worker.lock"

    @property
    def device_lock(self) -> Path:
        """The lock of a verb that uses the device, such as `lq chat`; while it is locked, no job starts."""
        return self.path / "device.lock"

    @property
    def worker_log(self) -> Path:
        """The worker's log."""
        return self.path / "worker.log"

    @property
    def start_log(self) -> Path:
        """The stderr of a detached worker."""
        return self.path / "worker.start.log"

    @property
    def jobs(self) -> Path:
        """One folder for each job."""
        return self.path / "jobs"

    @property
    def inbox(self) -> Path:
        """The inbox folder: lq submits job files that you put here."""
        return self.path / "inbox"

    @property
    def lengths(self) -> Path:
        """Token counts of the rows of data files; may be deleted."""
        return self.path / "cache" / "lengths"

    @property
    def cache(self) -> Path:
        """Tokenized data for all jobs; may be deleted at any time."""
        return self.path / "cache"

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
            raise HomeUnusable(f"{self.path}: {_reason(error)}; choose another folder with {VARIABLE}") from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise HomeUnusable(f"{self.path}: not writable; choose another folder with {VARIABLE}")


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
