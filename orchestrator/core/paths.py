"""$LQ_HOME: where everything of this user's lq lies (design.md, "Files")."""

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
    """The folder and the names in it."""

    path: Path

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Home:
        """Return the home the environment names, else the platform's user data folder.

        Args:
            environment: such as os.environ.
        """
        named = environment.get(VARIABLE)
        if named:
            return cls(Path(named).expanduser().absolute())
        import platformdirs

        return cls(Path(platformdirs.user_data_dir("lq", appauthor=False)))

    @property
    def settings(self) -> Path:
        """Settings of this machine."""
        return self.path / "settings.yaml"

    @property
    def store(self) -> Path:
        """The truth."""
        return self.path / "lq.db"

    @property
    def wakeup(self) -> Path:
        """Huey's own file."""
        return self.path / "queue.db"

    @property
    def worker_lock(self) -> Path:
        """Held by the one worker of this home."""
        return self.path / "worker.lock"

    @property
    def device_lock(self) -> Path:
        """Held by the verb that uses the device, such as `lq chat`; while it is, no job starts."""
        return self.path / "device.lock"

    @property
    def worker_log(self) -> Path:
        """What the worker did."""
        return self.path / "worker.log"

    @property
    def start_log(self) -> Path:
        """What a detached worker wrote to stderr; it has little to say there."""
        return self.path / "worker.start.log"

    @property
    def jobs(self) -> Path:
        """One folder a job."""
        return self.path / "jobs"

    @property
    def inbox(self) -> Path:
        """Where job files are dropped."""
        return self.path / "inbox"

    @property
    def lengths(self) -> Path:
        """How long the rows of data files are in tokens; may be deleted."""
        return self.path / "cache" / "lengths"

    @property
    def cache(self) -> Path:
        """Tokenised data, for every job; may be deleted at any time."""
        return self.path / "cache"

    def ensure(self) -> None:
        """Make the folders, for this user only.

        Raises:
            HomeUnusable: it cannot be made or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.jobs.mkdir(exist_ok=True, mode=0o700)
            with suppress(FileExistsError):  # what else may lie there is the drop folder's own trouble
                self.inbox.mkdir(mode=0o700)
            if self.path.stat().st_mode & 0o077:
                self.path.chmod(0o700)
        except OSError as error:
            raise HomeUnusable(f"{self.path}: {_reason(error)}; name another folder with {VARIABLE}") from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise HomeUnusable(f"{self.path}: not writable; name another folder with {VARIABLE}")


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
