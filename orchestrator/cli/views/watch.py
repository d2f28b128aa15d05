"""`lq watch`: the status view on the whole screen, redrawn when something changes."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

import click
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from jobs.model.exit_codes import ExitCode
from orchestrator.cli import home_access
from orchestrator.cli.views import status
from orchestrator.cli.views.snapshot import Snapshot, VerdictCache, take_snapshot
from orchestrator.cli.views.terminal import Printable, console_for, is_ascii_only
from orchestrator.core.app import App
from orchestrator.formatting import text as fmt

TICK_S = 1.0
"""The screen is redrawn at most this often, except for a new size."""

REFRESH_S = 5.0
"""A new snapshot is taken this often although the store has not changed: worker, battery and clock may have."""

CLOSED = "closed"
"""Stands for a key if the keyboard is closed."""

_SIGNALS = (signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT, signal.SIGTERM)
_QUIT = ("q", "Q", "\x04", CLOSED)


def watching(*, every: bool, group: str | None) -> int:
    """Show the status view until the user leaves; return the exit code.

    Takes the arguments of `take_snapshot`.
    """
    if not sys.stdout.isatty() or console_for(sys.stdout).is_dumb_terminal:
        raise click.UsageError("lq watch needs a terminal; without one use: lq status, or lq logs ID -f")
    try:
        with home_access.open_app() as app:
            verdicts = VerdictCache()
            snapshot = take_snapshot(app, every=every, group=group)  # errors appear before the screen is taken
            with Screen() as screen:
                changes, taken_at = _changes(app), time.monotonic()
                screen.show(snapshot)
                while not screen.quits_within(TICK_S):
                    if (now_at := _changes(app)) != changes or time.monotonic() - taken_at >= REFRESH_S:
                        changes, taken_at = now_at, time.monotonic()
                        screen.show(take_snapshot(app, every=every, group=group, verdicts=verdicts))
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    return 0


def _changes(app: App) -> int | None:
    return app.store.status.data_version() if home_access.has_store(app) else None


class Page:
    """A snapshot on one screen: the view as far as it fits, and a last line on how to leave."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Take the snapshot."""
        self._snapshot = snapshot

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render as many lines as the screen has."""
        rows = console.size.height
        lines = console.render_lines(status.render(self._snapshot), options.update(height=None), pad=False)
        left_out = len(lines) - (rows - 2)
        if left_out > 0:
            note = Text(f"… {left_out + 1} more lines; show all: lq status", style="dim", no_wrap=True)
            lines = [*lines[: rows - 3], *console.render_lines(note, options, pad=False)]
        left, right = "q quits", f"as of {fmt.short_time(self._snapshot.now, self._snapshot.now)}"
        foot = Text(f"{left}{right:>{max(1, options.max_width - len(left))}}", style="dim", no_wrap=True)
        filler: list[list[Segment]] = [[] for _ in range(rows - 1 - len(lines))]
        for line in [*lines, *filler]:
            yield from (*line, Segment.line())
        yield foot


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

    def show(self, snapshot: Snapshot) -> None:
        """Draw a snapshot."""
        self._live.update(Printable(Page(snapshot), ascii_only=self._ascii_only), refresh=True)

    def quits_within(self, seconds: float) -> bool:
        """Wait for a key that quits, and return whether one was pressed. Redraw for a new size of the terminal."""
        ends_at = time.monotonic() + seconds
        while (left := ends_at - time.monotonic()) > 0:
            sources = [self._wakeup_reader, *([self._keyboard] if self._keyboard is not None else [])]
            ready, _, _ = select.select(sources, [], [], left)
            if self._wakeup_reader in ready:
                self._handle_signals()
            if self._keyboard is not None and self._keyboard in ready and _key(self._keyboard) in _QUIT:
                return True
        return False

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
        if number == signal.SIGTERM:
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


def _key(keyboard: int) -> str | None:
    """Return the key that was pressed; None for the sequences of arrow and function keys."""
    try:
        typed = os.read(keyboard, 64)
    except OSError:
        return CLOSED
    if not typed:
        return CLOSED
    return None if typed[:1] == b"\x1b" and len(typed) > 1 else typed[:1].decode(errors="replace")
