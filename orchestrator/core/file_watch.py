"""Hints that a file has changed. The only file that imports watchdog.

A hint may be late, doubled or missing (field-notes.md), so whoever waits here also looks by itself every now and then.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

_TOUCHED = ("created", "modified", "moved", "deleted", "closed")
"""Linux closes the files of a process that dies, so a death is heard at once; elsewhere it is seen a little later."""

_NONE_LEFT = (OSError, RuntimeError)
"""No watch, no descriptor or no such folder; no thread."""

_GONE = ("moved", "deleted")
_CAME = ("created", "modified", "moved", "closed")


# an observer that is stopped while it hears something calls that an error, on the terminal of whoever stopped it
logging.getLogger("watchdog.observers.inotify").addFilter(lambda one: "thread is inactive" not in one.getMessage())


class _Watch(FileSystemEventHandler):
    """Rings when something happens in a folder; what, says `on_any_event`."""

    def __init__(self, folder: Path) -> None:
        self._woken = threading.Event()
        self._watched = folder
        self._observer: BaseObserver | None = None

    def wake(self) -> None:
        """Wake whoever waits."""
        self._woken.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for a hint, at most so long; say whether there was one."""
        heard = self._woken.wait(timeout_s)
        self._woken.clear()
        return heard

    def __enter__(self) -> Self:
        """Start watching. Where the system has no watches, descriptors or threads left, waiting simply times out."""
        with suppress(*_NONE_LEFT):
            self._observer = self._watching()
        return self

    def _watching(self) -> BaseObserver:
        observer = Observer()  # of inotify it takes an instance and a thread already
        try:
            observer.schedule(self, str(self._watched), recursive=False)
            observer.start()
        except _NONE_LEFT:
            observer.stop()  # lets go what it has taken
            raise
        return observer

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()


class FileWatch(_Watch):
    """Rings when one file is written or deleted, or its folder is deleted or moved."""

    def __init__(self, path: Path) -> None:
        """Watch a file; its folder must exist.

        Args:
            path: the file, which may not exist yet.
        """
        folder = path.parent.resolve()  # macOS tells of /private/tmp where /tmp was asked for
        self._folder, self._path = str(folder), str(folder / path.name)
        super().__init__(folder)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Ring if it was this file, and it was not just looked at; or the folder, and it is gone."""
        touched = self._path in (event.src_path, event.dest_path) and event.event_type in _TOUCHED
        if touched or (event.src_path == self._folder and event.event_type in _GONE):
            self.wake()


class FolderWatch(_Watch):
    """Rings when a file comes into a folder or is written there."""

    def __init__(self, folder: Path) -> None:
        """Watch a folder; where it does not exist, waiting simply times out."""
        super().__init__(folder.resolve())

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Ring unless something was only looked at or taken away."""
        if event.event_type in _CAME:
            self.wake()
