"""`lq watch` in a pseudo-terminal: what it draws, and how it leaves the terminal."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import io
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
from rich.cells import cell_len
from rich.console import ConsoleDimensions

from orchestrator.cli.views.snapshot import take_snapshot
from orchestrator.cli.views.terminal import console_for
from orchestrator.cli.views.watch import Page
from tests.golden import assert_golden
from tests.harness import BESIDE_PYTHON, InProcess, until
from tests.unit.orchestrator.cli_homes import MACHINE, NOW, Home, Seen
from tests.unit.orchestrator.job_files import app_of
from tests.unit.orchestrator.rendering import GOLDEN

ENTERED, LEFT = "\x1b[?1049h", "\x1b[?1049l"


class Terminal:
    """A pseudo-terminal in which lq runs."""

    def __init__(self, home: Path, *words: str) -> None:
        """Start lq at 80 columns and 24 rows."""
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
        """Change the size of the terminal."""
        fcntl.ioctl(self._here, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        """Send keys."""
        os.write(self._here, keys)

    def until(self, text: str) -> str:
        """Read until a text appears; return everything written since the last call."""

        def is_written() -> bool:
            while select.select([self._here], [], [], 0)[0]:
                try:
                    self.written += os.read(self._here, 1 << 16).decode(errors="replace")
                except OSError:
                    break
            return text in self.written

        until(is_written, f"{text!r} on the screen")
        written, self.written = self.written, ""
        return written

    def settings(self) -> list[object]:
        """Return the settings of the keyboard."""
        return list(termios.tcgetattr(self._there))

    def close(self) -> None:
        """Kill lq and close the terminal."""
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
"""Makes the terminal the controlling one, so that its keys send signals."""


@contextlib.contextmanager
def watched(home: Home, *words: str) -> Iterator[Terminal]:
    """Give a terminal in which lq watch has drawn its first screen."""
    terminal = Terminal(home.path, *(words or ("watch",)))
    try:
        assert ENTERED in terminal.until("q quits")
        yield terminal
    finally:
        terminal.close()


def test_watch_redraws_on_changes_and_resize(home: Home) -> None:
    home.running("night", seen=Seen(iteration=500, train_loss=1.25, val_loss=1.5, it_s=2.0))
    with watched(home) as terminal:
        home.queued("another")
        terminal.until("another")
        terminal.resize(60, 12)
        drawn = terminal.until("q quits")
        assert max(map(cell_len, _lines(drawn))) <= 60
        assert len(_lines(drawn)) <= 12
        home.store.queue.pause("a test", 1.0)  # the store can be written meanwhile
        terminal.until("a test")
        terminal.press(b"q")
        terminal.until(LEFT)
        assert terminal.lq.wait(30) == 0
        assert terminal.settings() == terminal.before


def _lines(drawn: str) -> list[str]:
    last = drawn.rpartition("\x1b[H")[2]
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", last).splitlines()


def test_watch_screen_matches_golden(full_home: Home, utc: None) -> None:
    stream = io.StringIO()
    console = console_for(stream, {})
    console.size = ConsoleDimensions(80, 24)
    with app_of(full_home) as app:
        snapshot = dataclasses.replace(take_snapshot(app, now=NOW), machine=MACHINE)
    console.print(Page(snapshot))
    text = "".join(f"{line.rstrip()}\n" for line in stream.getvalue().splitlines())
    assert text.count("\n") == 24
    assert_golden(text, GOLDEN / "watch_80.txt")


@pytest.mark.parametrize(("keys", "code"), [(b"\x03", 130), (b"\x04", 0)])
def test_ctrl_c_and_ctrl_d_quit(home: Home, keys: bytes, code: int) -> None:
    with watched(home, "status", "--watch") as terminal:
        terminal.press(keys)
        assert "Traceback" not in terminal.until(LEFT)
        assert terminal.lq.wait(30) == code
        assert terminal.settings() == terminal.before


def test_stop_and_sigterm_restore_terminal(home: Home) -> None:
    with watched(home) as terminal:
        terminal.press(b"\x1a")
        terminal.until(LEFT)
        until(lambda: terminal.settings() == terminal.before, "the keyboard settings")
        until(lambda: _is_stopped(terminal.lq.pid), "lq to be stopped")
        terminal.lq.send_signal(signal.SIGCONT)
        terminal.until("q quits")
        terminal.lq.terminate()
        terminal.until(LEFT)
        assert terminal.lq.wait(30) == 128 + signal.SIGTERM


def _is_stopped(pid: int) -> bool:
    import psutil

    return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)


def test_watch_needs_a_terminal(home: Home) -> None:
    answer = InProcess(home.path)("watch", expect=2)
    assert answer.out == ""
    assert "lq status" in answer.err
    assert answer.err.count("\n") == 1
