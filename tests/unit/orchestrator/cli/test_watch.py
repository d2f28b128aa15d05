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

from jobs.model.events import Event, Kind, to_line
from jobs.model.outcomes import Reason
from jobs.model.states import Status
from orchestrator.cli.views.screen import keys_in
from orchestrator.cli.views.snapshot import take_snapshot
from orchestrator.cli.views.terminal import console_for
from orchestrator.cli.views.watch import Watch
from tests.golden import assert_golden
from tests.harness import BESIDE_PYTHON, InProcess, Lq, until
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


@contextlib.contextmanager
def watch_of(home: Home) -> Iterator[Watch]:
    """Give what lq watch shows at the present of golden files."""
    with app_of(home) as app:
        watch = Watch(app)
        watch.snapshot = dataclasses.replace(take_snapshot(app, now=NOW), machine=MACHINE)
        yield watch


def screen_of(watch: Watch, columns: int = 80, rows: int = 24) -> list[str]:
    """Return the lines of the screen."""
    stream = io.StringIO()
    console = console_for(stream, {})
    console.size = ConsoleDimensions(columns, rows)
    console.print(watch)
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert len(lines) == rows
    assert max(map(cell_len, lines)) <= columns
    return lines


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (160, 50), (40, 12)])
def test_watch_screen_matches_golden(full_home: Home, utc: None, columns: int, rows: int) -> None:
    with watch_of(full_home) as watch:
        text = "\n".join(screen_of(watch, columns, rows))
    assert_golden(f"{text}\n", GOLDEN / f"watch_{columns}.txt")


def test_keys_are_read_from_any_terminal() -> None:
    sent = b"\x1b[A\x1bOB\x1b[6~j\r\x1b[15~\x1b\xc3\xa9\x01q"
    assert list(keys_in(sent)) == ["up", "down", "page down", "j", "enter", "esc", "é", "q"]


def test_long_list_scrolls_with_selection(home: Home) -> None:
    for number in range(60):
        home.queued(f"night-{number:02}")
    with watch_of(home) as watch:
        assert watch.selected == 1
        for key, selected in (("up", 1), ("down", 2), ("page down", 22), ("end", 60), ("k", 59), ("home", 1)):
            watch.press(key)
            lines = screen_of(watch)
            assert watch.selected == selected
            assert any(f"night-{selected - 1:02}" in line for line in lines)
            assert any("more lines below" in line for line in lines) == (selected < 55)
        screen_of(watch, 20, 3)  # a very small window


def test_keys_open_and_leave_views(full_home: Home) -> None:
    with watch_of(full_home) as watch:
        assert watch.selected is not None
        name = full_home.store.jobs.get(watch.selected).name
        for key, shown in (("enter", f"job {watch.selected}: {name}"), ("l", f"log of job {watch.selected}")):
            watch.press(key)
            assert any(line.startswith(shown) for line in screen_of(watch))
            for scroll in ("page down", "end", "up", "home", "page up"):
                watch.press(scroll)
                screen_of(watch)
            watch.press("esc")
            assert screen_of(watch)[0].startswith("worker:")
        watch.press("?")
        assert any("cancel it" in line for line in screen_of(watch))
        watch.press("q")
        assert not watch.left
        watch.press("q")
        assert watch.left


def test_log_follows_until_scrolled(home: Home) -> None:
    job = home.running("night")
    path = Path(job.job_dir) / "events.jsonl"
    with watch_of(home) as watch:
        watch.press("l")
        for count in (50, 80):
            path.write_bytes(b"".join(_warning(number) for number in range(count)))
            assert screen_of(watch)[-2].endswith(f"line {count - 1}")
        watch.press("up")
        path.write_bytes(b"".join(_warning(number) for number in range(99)))
        assert "more lines below" in screen_of(watch)[-2]
        watch.press("end")
        assert screen_of(watch)[-2].endswith("line 98")


def _warning(number: int) -> bytes:
    data = {"code": "note", "text": f"line {number}"}
    return to_line(Event(seq=number + 1, time=NOW + number, awake=1.0, attempt=1, kind=Kind.WARNING, data=data))


def test_keys_control_the_selected_job(home: Home) -> None:
    failed, queued = home.ended(Status.FAILED, Reason.CRASHED, name="day"), home.queued("night")
    Lq(home.path).settings(autostart=False)
    with watch_of(home) as watch:
        for key, after in (("p", Status.HELD), ("r", Status.QUEUED), ("c", Status.QUEUED), ("n", Status.QUEUED)):
            watch.press(key)
            assert home.store.jobs.get(queued.id).status is after
        for key in "cy":
            watch.press(key)
        assert home.store.jobs.get(queued.id).status is Status.CANCELLED
        watch.refresh(now=True)
        watch.selected = failed.id
        watch.press("p")
        assert home.store.jobs.get(failed.id).status is Status.FAILED
        assert "lq: " in screen_of(watch)[-1]
        watch.press("r")
        assert home.store.jobs.get(failed.id).status is Status.QUEUED


@pytest.mark.parametrize(("keys", "code"), [(b"\x03", 130), (b"\x04", 0)])
def test_ctrl_c_and_ctrl_d_quit(home: Home, keys: bytes, code: int) -> None:
    with watched(home, "status", "--watch") as terminal:
        terminal.press(keys)
        assert "Traceback" not in terminal.until(LEFT)
        assert terminal.lq.wait(30) == code
        assert terminal.settings() == terminal.before


def test_keys_work_in_a_terminal(home: Home) -> None:
    home.queued("night")
    Lq(home.path).settings(autostart=False)
    with watched(home) as terminal:
        for keys, shown in (
            (b"\r", "job 1: night"),
            (b"l", "log of job 1"),
            (b"\x1b", "q quits"),
            (b"?", "after a question"),
            (b"q", "q quits"),
            (b"c", "cancel job 1"),
            (b"y", "job 1 cancelled"),
        ):
            terminal.press(keys)
            terminal.until(shown)
        terminal.press(b"q")
        terminal.until(LEFT)
        assert terminal.lq.wait(60) == 0


def test_suspending_gives_terminal_back(home: Home) -> None:
    with watched(home) as terminal:
        terminal.press(b"\x1a")
        terminal.until(LEFT)
        until(lambda: terminal.settings() == terminal.before, "the keyboard settings")
        until(lambda: _is_stopped(terminal.lq.pid), "lq to be stopped")
        terminal.lq.send_signal(signal.SIGCONT)
        terminal.until("q quits")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_restore_terminal(home: Home, number: signal.Signals) -> None:
    with watched(home) as terminal:
        terminal.lq.send_signal(number)
        terminal.until(LEFT)
        assert terminal.lq.wait(60) == 128 + number
        assert terminal.settings() == terminal.before


def test_crash_restores_terminal(home: Home) -> None:
    home.queued("night")
    with watched(home) as terminal:
        with home.store.database.writing() as db:
            db.exec_driver_sql("ALTER TABLE jobs RENAME TO lost")
        terminal.until(LEFT)
        assert terminal.lq.wait(60) == 1
        assert terminal.settings() == terminal.before


def _is_stopped(pid: int) -> bool:
    import psutil

    return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)


def test_watch_needs_a_terminal(home: Home) -> None:
    answer = InProcess(home.path)("watch", expect=2)
    assert answer.out == ""
    assert "lq status" in answer.err
    assert answer.err.count("\n") == 1
