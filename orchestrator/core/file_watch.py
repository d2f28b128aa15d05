"""Waits for changes of a file or a folder. The only module that imports watchdog.

A hint may be late, doubled or missing (docs/explanation/dependencies.md), so callers also check after a timeout.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver

_FILE_CHANGED = ("created", "modified", "moved", "deleted", "closed")
"""On Linux a process that exits closes its files, so its exit causes a hint; other systems need the timeout."""

_FOLDER_REMOVED = ("moved", "deleted")
_FILE_ADDED = ("created", "modified", "moved", "closed")

_UNAVAILABLE = (OSError, RuntimeError)
"""The folder does not exist, or the system has no watches, descriptors or threads left."""

# watchdog logs an error if an observer is stopped while it handles an event
logging.getLogger("watchdog.observers.inotify").addFilter(
    lambda record: "thread is inactive" not in record.getMessage()
)


class FolderWatch(FileSystemEventHandler):
    """Hints when a file is added to a folder or written there."""

    def __init__(self, folder: Path) -> None:
        """Watch a folder; if it does not exist, every wait times out."""
        self._hint = threading.Event()
        self.wake = self._hint.set  # ends the present wait, or the next one
        self._watched = folder.resolve()  # macOS reports /private/tmp for /tmp
        self._observer: BaseObserver | None = None

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Hint unless a file was only read or removed."""
        if event.event_type in _FILE_ADDED:
            self.wake()

    def wait(self, timeout_s: float) -> bool:
        """Wait for a hint; return False after the timeout."""
        hinted = self._hint.wait(timeout_s)
        self._hint.clear()
        return hinted

    def __enter__(self) -> Self:
        """Start to watch. If the system has no watches, descriptors or threads left, every wait times out."""
        with suppress(*_UNAVAILABLE):
            observer = Observer()  # takes an inotify instance and a thread
            try:
                observer.schedule(self, str(self._watched), recursive=False)
                observer.start()
                self._observer = observer
            except _UNAVAILABLE:
                observer.stop()  # frees both
        return self

    def __exit__(self, *error: object) -> None:
        """Stop watching."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()


class FileWatch(FolderWatch):
    """Hints when a file is written or deleted, or its folder is deleted or moved."""

    def __init__(self, path: Path) -> None:
        """Watch a file in an existing folder; the file itself may be missing."""
        super().__init__(path.parent)
        self._folder, self._path = str(self._watched), str(self._watched / path.name)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Hint if the file was changed, not only read, or if the folder was removed."""
        changed = self._path in (event.src_path, event.dest_path) and event.event_type in _FILE_CHANGED
        if changed or (event.src_path == self._folder and event.event_type in _FOLDER_REMOVED):
            self.wake()
