"""What a child is asked by signals: TERM = checkpoint and stop, USR1 = validate and checkpoint now."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopAsked(BaseException):
    """Raised where stopping costs nothing, so that nobody waits for a model to load before it may stop."""


class Requests:
    """Set by signal handlers, read by the trainer between iterations."""

    def __init__(self) -> None:
        """Nothing is asked yet."""
        self.stop = False
        self.snapshot = False
        self.segment_over = False  # the stop is the trainer's own, at the end of a segment
        self._nothing_to_lose = False

    def listen(self) -> None:
        """Install the handlers; HUP is ignored, because the terminal it comes from is not the run's."""
        signal.signal(signal.SIGTERM, self._on_stop)
        signal.signal(signal.SIGINT, self._on_stop)
        signal.signal(signal.SIGUSR1, self._on_snapshot)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def nothing_more(self) -> None:
        """Ignore further requests: everything is done and said, only Python's own shutdown remains."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)

    @contextmanager
    def nothing_to_lose(self) -> Iterator[None]:
        """Within this block a stop takes effect at once, by StopAsked."""
        self._nothing_to_lose = True
        try:
            if self.stop:
                raise StopAsked
            yield
        finally:
            self._nothing_to_lose = False

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stop = True
        if self._nothing_to_lose:
            raise StopAsked

    def _on_snapshot(self, _number: int, _frame: FrameType | None) -> None:
        self.snapshot = True
