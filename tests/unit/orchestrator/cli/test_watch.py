"""`lq watch` in a pseudo-terminal: what it draws, how little it sends, and how it leaves the terminal."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import BESIDE_PYTHON, InProcess, until
from tests.unit.orchestrator.cli_homes import Home, Seen

ENTERED, LEFT = "\x1b[?1049h", "\x1b[?7h\x1b[?25h\x1b[?1049l"
CLEARED = "\x1b[H\x1b[2J"
_PLACED = re.compile(r"\x1b\[(\d+);1H")


class Terminal:
    """A terminal with `lq watch` in it."""

    def __init__(self, home: Path, *words: str) -> None:
        """Start it, at 80 columns and 24 rows."""
        self._here, there = pty.openpty()
        self.resize(80, 24)
        self._there = os.dup(there)
        self.before = termios.tcgetattr(there)
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.lq = subprocess.Popen(
            [sys.executable, "-c", _IN_FRONT, str(BESIDE_PYTHON / "lq"), *words],
            stdin=there,
            stdout=there,
            stderr=there,
            env=environment | {"LQ_HOME": str(home), "TERM": "xterm-256color"},
            start_new_session=True,
        )
        os.close(there)
        self.written = ""

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size."""
        fcntl.ioctl(self._here, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        """Type."""
        os.write(self._here, keys)

    def until(self, text: str) -> str:
        """Read until there is some text; return what was written since the last time, and forget it."""

        def there() -> bool:
            while select.select([self._here], [], [], 0)[0]:
                try:
                    self.written += os.read(self._here, 1 << 16).decode(errors="replace")
                except OSError:
                    break
            return text in self.written

        until(there, f"{text!r} on the screen")
        found, self.written = self.written, ""
        return found

    def settings(self) -> list[object]:
        """Return how the keyboard is set."""
        return list(termios.tcgetattr(self._there))

    def close(self) -> None:
        """End everything."""
        if self.lq.poll() is None:
            self.lq.kill()
        self.lq.wait()
        for end in (self._here, self._there):
            os.close(end)


_IN_FRONT = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Has the keys of the terminal reach the program, as a shell does."""


@contextlib.contextmanager
def watched(home: Home, *words: str) -> Iterator[Terminal]:
    """Give a terminal with a watch that has drawn its first page."""
    terminal = Terminal(home.path, *(words or ("watch",)))
    try:
        assert ENTERED in terminal.until("q leaves")
        yield terminal
    finally:
        terminal.close()


def test_a_watch_draws_what_changes_follows_the_window_and_leaves_the_terminal_as_it_was(home: Home) -> None:
    home.running("night", seen=Seen(iteration=500, train_loss=1.25, val_loss=1.5, it_s=2.0))
    with watched(home) as terminal:
        home.queued("another")
        change = terminal.until("another")
        assert CLEARED not in change
        rows = {int(row) for row in _PLACED.findall(change)}
        assert rows.isdisjoint({1, 24}), "what did not change is not sent again"

        terminal.resize(60, 12)
        drawn = terminal.until("q leaves")
        assert CLEARED in drawn
        assert max(map(int, _PLACED.findall(drawn))) <= 12

        home.store.queue.pause("a test", 1.0)  # nothing keeps the store from being written meanwhile
        terminal.until("queue: paused")
        terminal.press(b"q")
        terminal.until(LEFT)
        assert terminal.lq.wait(30) == 0
        assert terminal.settings() == terminal.before


@pytest.mark.parametrize(("keys", "code"), [(b"\x03", 130), (b"\x04", 0)])
def test_control_c_and_d_leave_it_cleanly(home: Home, keys: bytes, code: int) -> None:
    with watched(home, "status", "--watch") as terminal:
        terminal.press(keys)
        assert "Traceback" not in terminal.until(LEFT)
        assert terminal.lq.wait(30) == code
        assert terminal.settings() == terminal.before


def test_a_watch_that_is_ended_or_set_aside_gives_the_terminal_back(home: Home) -> None:
    with watched(home) as terminal:
        terminal.press(b"\x1a")
        terminal.until(LEFT)
        until(lambda: terminal.settings() == terminal.before, "the keyboard as it was")
        until(lambda: _stands_still(terminal.lq.pid), "the watch to stand still")
        terminal.lq.send_signal(signal.SIGCONT)
        terminal.until("q leaves")
        terminal.lq.terminate()
        terminal.until(LEFT)
        assert terminal.lq.wait(30) == 128 + signal.SIGTERM


def _stands_still(pid: int) -> bool:
    import psutil

    return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)


def test_without_a_terminal_it_says_what_to_type_instead(home: Home) -> None:
    answer = InProcess(home.path)("watch", expect=2)
    assert answer.out == ""
    assert answer.err.startswith("lq: lq watch draws on a terminal, and this is none; one look: lq status; ")
    assert answer.err.count("\n") == 1
