"""Which changes of files end a wait."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from orchestrator.core.file_watch import FileWatch, FolderWatch
from tests.harness import until

WRITES = "import sys, time; file = open(sys.argv[1], 'a'); file.write('here'); file.flush(); time.sleep(600)"


@pytest.mark.skipif(sys.platform != "linux", reason="only inotify reports a closed file")
def test_writer_crash_gives_hint(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with FileWatch(path) as hint, subprocess.Popen([sys.executable, "-c", WRITES, path]) as writer:
        try:
            until(lambda: path.exists() and path.read_text() == "here", "the writer to have written")
            until(lambda: not hint.wait(0.3), "no more hints")
            writer.kill()
            assert hint.wait(30)
        finally:
            writer.kill()


def test_only_the_watched_file_gives_hints(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with FileWatch(path) as hint:
        (tmp_path / "train.log").write_text("noise")
        assert not hint.wait(0.5)
        path.write_text("a line")
        assert hint.wait(30)


@pytest.mark.skipif(sys.platform != "linux", reason="only the inotify observer logs this")
def test_stop_during_event_logs_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with FileWatch(tmp_path / "events.jsonl") as hint:
        assert hint._observer is not None
        (emitter,) = hint._observer.emitters
    emitter.queue_events(0.1)  # as its thread does right after a stop
    assert caplog.records == []


NOTHING_LEFT = """
import pathlib, resource, sys
from orchestrator.core.file_watch import FileWatch

resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))  # what is open stays open
with FileWatch(pathlib.Path(sys.argv[1])) as hint:
    print(hint.wait(0.1))
"""


def test_wait_times_out_without_watches(tmp_path: Path) -> None:
    line = [sys.executable, "-c", NOTHING_LEFT, str(tmp_path / "events.jsonl")]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_missing_folder_leaves_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with FolderWatch(tmp_path / "missing") as hint:
        assert not hint.wait(0.1)
    until(lambda: set(threading.enumerate()) <= before, "its threads to be gone")
