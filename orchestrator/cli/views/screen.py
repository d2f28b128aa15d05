"""A whole screen to draw on: only lines that changed are sent, and the terminal is afterwards as it was.

Terminals know the sequences (ECMA-48 and xterm's private modes): another screen 1049, the cursor 25, wrapping 7,
and 2026, which has a terminal show all that is sent at once, and which those that do not know it pass over.
"""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

from rich.cells import cell_len

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"
_ALL_AT_ONCE, _DONE = "\x1b[?2026h", "\x1b[?2026l"
_CLEAR, _TO_THE_END = "\x1b[H\x1b[2J", "\x1b[K"
_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_HEARD = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT, signal.SIGTERM)

GONE = "gone"
"""In the place of a key: the keyboard is closed."""


class Screen:
    """The terminal that standard output is, while a block lasts."""

    def __init__(self) -> None:
        """Nothing is changed yet."""
        self._out, self._keys = sys.stdout.fileno(), sys.stdin.fileno() if sys.stdin.isatty() else None
        self._before: list[Any] | None = None  # how the keyboard was
        self._handlers: dict[signal.Signals, Any] = {}
        self._shown: list[str] = []
        self._anew = True
        self._stop = False
        self._woken, self._wake = os.pipe()
        for end in (self._woken, self._wake):
            os.set_blocking(end, False)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        try:
            found = os.get_terminal_size(self._out)
        except OSError:
            return 80, 24
        return found.columns or 80, found.lines or 24

    def show(self, lines: Sequence[str]) -> None:
        """Show lines from the top; what stands there already is not sent again.

        Args:
            lines: as many as fit.
        """
        columns, rows = self.size
        wanted = [*lines[:rows], *[""] * (rows - len(lines))]
        sent = [_CLEAR] if self._anew else []
        shown = [""] * rows if self._anew else self._shown
        for row, (old, new) in enumerate(zip(shown, wanted, strict=True), start=1):
            if old != new:
                rest = _TO_THE_END if cell_len(_SEQUENCE.sub("", new)) < columns else ""
                sent.append(f"\x1b[{row};1H{new}{rest}")
        if sent:
            self._write(f"{_ALL_AT_ONCE}{''.join(sent)}{_DONE}")
        self._shown, self._anew = wanted, False

    def wait(self, seconds: float) -> tuple[str, bool]:
        """Wait for a key, another size of the terminal, or so long.

        Returns:
            The key, empty for none and GONE for a keyboard that is closed; and whether all must be drawn anew.
        """
        ends = time.monotonic() + seconds
        watched = [self._woken, *([self._keys] if self._keys is not None else [])]
        while (left := ends - time.monotonic()) > 0:
            ready, _, _ = select.select(watched, [], [], left)
            if self._woken in ready:
                self._emptied()
            if self._stop:
                self._suspend()
            if self._anew:
                return "", True
            if self._keys is not None and self._keys in ready and (key := _read(self._keys)) is not None:
                return key, False
        return "", False

    def _emptied(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._woken, 64):
                pass

    def _suspend(self) -> None:
        """Give the terminal back, stand still as the user asked, and take it again."""
        self._stop = False
        self._restore()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()

    def _take(self) -> None:
        if self._keys is not None:
            self._before = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys)
        self._write(_ENTER)
        self._anew = True

    def _restore(self) -> None:
        self._write(_LEAVE)
        if self._keys is not None and self._before is not None:
            with suppress(termios.error):
                termios.tcsetattr(self._keys, termios.TCSADRAIN, self._before)

    def _write(self, text: str) -> None:
        data = text.encode(sys.stdout.encoding or "utf-8", errors="replace")
        while data:
            data = data[os.write(self._out, data) :]

    def _hear(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGTERM:
            raise SystemExit(128 + number)
        if number == signal.SIGTSTP:
            self._stop = True
        else:
            self._anew = True

    def __enter__(self) -> Self:
        """Take the terminal."""
        sys.stdout.flush()
        hear: Callable[[int, FrameType | None], None] = self._hear
        self._handlers = {number: signal.signal(number, hear) for number in _HEARD}
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back as it was."""
        with suppress(OSError):  # it may be closed
            self._restore()
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._woken)
        os.close(self._wake)


def _read(keyboard: int) -> str | None:
    """Return the key that was pressed; None where it is the rest of a sequence that arrows and such send."""
    try:
        typed = os.read(keyboard, 64)
    except OSError:
        return GONE
    if not typed:
        return GONE
    return None if typed[:1] == b"\x1b" and len(typed) > 1 else typed[:1].decode(errors="replace")
