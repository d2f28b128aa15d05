"""Hints of the file system: what rings, so that nobody waits for the next look."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from orchestrator.core.file_watch import FileWatch, FolderWatch
from tests.harness import until

WRITES = "import sys, time; file = open(sys.argv[1], 'a'); file.write('here'); file.flush(); time.sleep(600)"


@pytest.mark.skipif(sys.platform != "linux", reason="only inotify tells of a file that is let go")
def test_the_crash_of_a_trainer_rings_at_once(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with FileWatch(path) as bell, subprocess.Popen([sys.executable, "-c", WRITES, path]) as writer:
        try:
            until(lambda: path.exists() and path.read_text() == "here", "the writer to have written")
            until(lambda: not bell.wait(0.3), "the bell to be silent")
            writer.kill()
            assert bell.wait(30)
        finally:
            writer.kill()


def test_a_line_rings_and_another_file_does_not(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with FileWatch(path) as bell:
        (tmp_path / "train.log").write_text("noise")
        assert not bell.wait(0.5)
        path.write_text("a line")
        assert bell.wait(30)


@pytest.mark.skipif(sys.platform != "linux", reason="it is inotify's observer that says so")
def test_an_observer_that_is_stopped_while_it_hears_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with FileWatch(tmp_path / "events.jsonl") as bell:
        assert bell._observer is not None
        (emitter,) = bell._observer.emitters
    emitter.queue_events(0.1)  # as its thread does, where the stop came a moment before
    assert caplog.records == []


NOTHING_LEFT = """
import pathlib, resource, sys
from orchestrator.core.file_watch import FileWatch

resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))  # what is open stays open
with FileWatch(pathlib.Path(sys.argv[1])) as bell:
    print(bell.wait(0.1))
"""


def test_where_nothing_can_be_watched_waiting_times_out(tmp_path: Path) -> None:
    """As where an editor has taken every instance of inotify."""
    line = [sys.executable, "-c", NOTHING_LEFT, str(tmp_path / "events.jsonl")]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_what_is_not_there_is_not_watched_and_no_thread_stays(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with FolderWatch(tmp_path / "missing") as bell:
        assert not bell.wait(0.1)
    until(lambda: set(threading.enumerate()) <= before, "its threads to be gone")
