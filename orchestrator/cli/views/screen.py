"""The terminal as one screen: drawn whole, with keys, and given back as it was however lq ends."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

from rich.console import RenderableType
from rich.live import Live

from orchestrator.cli.views.terminal import Printable, console_for, is_ascii_only

CLOSED = "closed"
"""Stands for a key if the keyboard is closed."""

ESCAPE_S = 0.05
"""A slow connection can deliver the bytes of one key in two parts."""

_SIGNALS = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT, signal.SIGTERM, signal.SIGHUP)
_KEY = re.compile(rb"\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Za-z]|[\xc0-\xff][\x80-\xbf]*|.", re.DOTALL)
_UNFINISHED = re.compile(rb"\x1b(\[[0-9;]*|O)?\Z")
_NAMES = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b[H": "home",
    b"\x1b[1~": "home",
    b"\x1b[F": "end",
    b"\x1b[4~": "end",
    b"\r": "enter",
    b"\n": "enter",
    b"\x1b": "esc",
    b"\x7f": "esc",
    b"\x04": CLOSED,  # Ctrl-D
}


def keys_in(typed: bytes) -> Iterator[str]:
    """Yield the keys that a terminal has sent; unknown function keys are left out."""
    for key in _KEY.findall(typed):
        known = _NAMES.get(key.replace(b"\x1bO", b"\x1b["))
        if known is not None or (not key.startswith(b"\x1b") and key >= b" "):
            yield known or key.decode(errors="replace")


class Screen:
    """The terminal's alternate screen and its keyboard, given back at the end and while the process is suspended."""

    def __init__(self) -> None:
        """Change nothing yet."""
        # COLUMNS would keep the view from following the size of the window
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        console = console_for(sys.stdout, environment)
        self._live = Live(
            console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        )
        self._ascii_only = is_ascii_only(sys.stdout)
        self._keyboard = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._keyboard_settings: list[Any] = []
        self._handlers: dict[signal.Signals, Any] = {}
        self._suspends = self._redraws = False
        self._wakeup_reader, self._wakeup_writer = os.pipe()
        for end in (self._wakeup_reader, self._wakeup_writer):
            os.set_blocking(end, False)

    @property
    def height(self) -> int:
        """The number of lines."""
        return self._live.console.size.height

    def show(self, view: RenderableType) -> None:
        """Draw a view that fills the screen."""
        self._live.update(Printable(view, ascii_only=self._ascii_only), refresh=True)

    def keys_within(self, seconds: float) -> list[str]:
        """Wait for keys, and return them. Redraw for a new size of the terminal."""
        ends_at = time.monotonic() + seconds
        while (left := ends_at - time.monotonic()) > 0:
            sources = [self._wakeup_reader, *([self._keyboard] if self._keyboard is not None else [])]
            ready, _, _ = select.select(sources, [], [], left)
            if self._wakeup_reader in ready:
                self._handle_signals()
            if self._keyboard in ready and (keys := list(keys_in(self._typed(self._keyboard)))):
                return keys
        return []

    @staticmethod
    def _typed(keyboard: int) -> bytes:
        try:
            typed = os.read(keyboard, 64)
            while _UNFINISHED.search(typed) and select.select([keyboard], [], [], ESCAPE_S)[0]:
                typed += os.read(keyboard, 64)
        except OSError:
            typed = b""
        return typed or b"\x04"

    def _handle_signals(self) -> None:
        with suppress(BlockingIOError):
            while os.read(self._wakeup_reader, 64):
                pass
        if self._suspends:
            self._suspends = False
            self._give_back()
            os.kill(os.getpid(), signal.SIGSTOP)
            self._take()
        if self._redraws:
            self._redraws = False
            self._live.refresh()

    def _note_signal(self, number: int, _: FrameType | None) -> None:
        if number in (signal.SIGTERM, signal.SIGHUP):
            raise SystemExit(128 + number)
        self._suspends |= number == signal.SIGTSTP
        self._redraws |= number != signal.SIGTSTP

    def _take(self) -> None:
        if self._keyboard is not None:
            self._keyboard_settings = termios.tcgetattr(self._keyboard)
            tty.setcbreak(self._keyboard)
        self._live.start(refresh=True)

    def _give_back(self) -> None:
        with suppress(OSError):  # the terminal may be closed
            self._live.stop()
        if self._keyboard is not None:
            with suppress(termios.error):
                termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._keyboard_settings)

    def __enter__(self) -> Self:
        """Take the terminal."""
        handle: Callable[[int, FrameType | None], None] = self._note_signal
        self._handlers = {number: signal.signal(number, handle) for number in _SIGNALS}
        signal.set_wakeup_fd(self._wakeup_writer, warn_on_full_buffer=False)
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the terminal back as it was."""
        self._give_back()
        signal.set_wakeup_fd(-1)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._wakeup_reader)
        os.close(self._wakeup_writer)
