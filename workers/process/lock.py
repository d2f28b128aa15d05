"""A lock file that names its holder. The kernel releases the lock when the holder's process ends for any reason."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jobs.model.job import ProcessIdentity
from workers.system.processes import is_alive

VERSION = 1

_RETRY_S, _BETWEEN_TRIES_S = 0.2, 0.02


class Held(Exception):
    """Another process holds the lock."""


class LockFile:
    """An exclusive flock on a file that contains the identity of its holder."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path) -> LockFile:
        """Take the lock. Retries for a moment, because `holder` takes a shared lock while it reads.

        Raises:
            Held: another process has it.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if _locked_within(descriptor, _RETRY_S):
            return cls(path, descriptor)
        os.close(descriptor)
        raise Held(str(path))

    def content(self) -> dict[str, Any]:
        """Return what the last holder wrote; empty if it wrote nothing."""
        return _parse(os.pread(self._descriptor, 1 << 16, 0))

    def write(self, who: ProcessIdentity, **more: Any) -> None:
        """Write the holder's identity, and other values, into the file."""
        text = json.dumps({"version": VERSION, **dataclasses.asdict(who), **more}).encode()
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, text, 0)

    def is_in_place(self) -> bool:
        """Report whether the path still has this file; otherwise another process could lock a new file there."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False
        except OSError:
            return True  # a disk that cannot be read now proves nothing

    def release(self) -> None:
        """Release the lock. The file stays: without it two processes could lock two different files."""
        os.close(self._descriptor)


def running_holder(path: Path) -> tuple[ProcessIdentity, dict[str, Any]] | None:
    """Return the holder of a lock and what it wrote; None without one, or before it has written its name.

    A process that took the lock a moment ago has not replaced the name of the last holder yet, which does not run.
    """
    content = holder(path)
    who = named_in(content) if content is not None else None
    return (who, content) if content is not None and who is not None and is_alive(who) else None


def holder(path: Path) -> dict[str, Any] | None:
    """Return what the present holder wrote: empty if it has not written yet, None if no process holds the lock."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _parse(os.pread(descriptor, 1 << 16, 0))
    else:
        return None
    finally:
        os.close(descriptor)


@contextmanager
def sole(folder: Path, *, wait_s: float) -> Iterator[bool]:
    """Lock an existing folder, so that only one process deletes in it; yield False if another one keeps the lock."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield _locked_within(descriptor, wait_s)
    finally:
        os.close(descriptor)


def _locked_within(descriptor: int, wait_s: float) -> bool:
    deadline = time.monotonic() + wait_s
    while True:
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(_BETWEEN_TRIES_S)


def named_in(content: dict[str, Any]) -> ProcessIdentity | None:
    with suppress(KeyError, TypeError, ValueError):
        return ProcessIdentity(
            pid=int(content["pid"]), create_time=float(content["create_time"]), boot_id=str(content["boot_id"])
        )
    return None


def _parse(raw: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        content = json.loads(raw)
        if isinstance(content, dict) and content.get("version") == VERSION:
            return content
    return {}
