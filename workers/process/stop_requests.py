"""The signals that a trainer handles: TERM = write a checkpoint and stop, USR1 = validate and write a checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopNow(BaseException):
    """Raised on a stop while nothing can be lost, for example while the model loads."""


class Requests:
    """Requests that signal handlers set and the trainer reads between iterations."""

    def __init__(self) -> None:
        self.stop = False
        self.snapshot = False
        self.segment_over = False  # the trainer stops by itself, at the end of a segment
        self._nothing_to_lose = False

    def listen(self) -> None:
        """Install the handlers. HUP is ignored: it comes from a terminal the trainer does not need."""
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGUSR1, self._on_snapshot)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def ignore_all(self) -> None:
        """Ignore further requests, when only the shutdown of Python is left."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)

    @contextmanager
    def nothing_to_lose(self) -> Iterator[None]:
        """In this block a stop raises StopNow immediately."""
        self._nothing_to_lose = True
        try:
            if self.stop:
                raise StopNow
            yield
        finally:
            self._nothing_to_lose = False

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stop = True
        if self._nothing_to_lose:
            raise StopNow

    def _on_snapshot(self, _number: int, _frame: FrameType | None) -> None:
        self.snapshot = True
