"""The lock file, between real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobs.model.job import ProcessIdentity
from workers.process.lock import Held, LockFile, holder, named_in
from workers.system.processes import identity

HOLD = """
import sys
from pathlib import Path
from workers.process.lock import LockFile
from workers.system.processes import identity
lock = LockFile.take(Path(sys.argv[1]))
lock.write(identity(), attempt=3)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def other_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a process that holds the lock until it is killed or its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of the lock file."""
    return tmp_path / "trainer.lock"


def test_lock_is_exclusive(path: Path) -> None:
    with other_process(path) as other:
        with pytest.raises(Held):
            LockFile.take(path)
        content = holder(path)
        assert content is not None
        assert (content["pid"], content["attempt"]) == (other.pid, 3)
        assert named_in(content) == identity(other.pid)


def test_kill_releases_lock_and_keeps_name(path: Path) -> None:
    with other_process(path) as other:
        other.send_signal(signal.SIGKILL)
        other.wait(10)
        assert holder(path) is None
        lock = LockFile.take(path)
        assert lock.content()["pid"] == other.pid
        assert lock.content()["attempt"] == 3
        lock.release()


def test_new_holder_has_no_name(path: Path) -> None:
    lock = LockFile.take(path)
    assert holder(path) == {}
    assert named_in({}) is None
    lock.write(identity(), attempt=1)
    assert named_in(holder(path) or {}) == identity()
    lock.release()
    assert holder(path) is None


def test_write_replaces_longer_content(path: Path) -> None:
    lock = LockFile.take(path)
    lock.write(identity(), note="x" * 500)
    lock.write(ProcessIdentity(pid=1, create_time=2.0, boot_id="b"))
    assert lock.content() == {"version": 1, "pid": 1, "create_time": 2.0, "boot_id": "b"}
    lock.release()


def test_missing_lock_has_no_holder(path: Path) -> None:
    assert holder(path) is None
    assert not path.exists()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "7", '{"pid": 4}', '{"version": 2, "pid": 4, "create_time": 1.0, "boot_id": "b"}']
)
def test_invalid_content_has_no_name(path: Path, content: str) -> None:
    path.write_text(content)
    lock = LockFile.take(path)
    assert named_in(lock.content()) is None
    assert named_in(holder(path) or {}) is None
    lock.release()


@pytest.mark.parametrize(
    "content", [{}, {"pid": 1}, {"pid": "x", "create_time": 1, "boot_id": "b"}, {"pid": None, "create_time": 1}]
)
def test_incomplete_identity_is_none(content: dict[str, object]) -> None:
    assert named_in(content) is None


def test_reading_does_not_block_taking(path: Path) -> None:
    LockFile.take(path).release()
    over = threading.Event()

    def probe() -> None:
        while not over.is_set():
            holder(path)

    prober = threading.Thread(target=probe)
    prober.start()
    try:
        for _ in range(200):
            LockFile.take(path).release()
    finally:
        over.set()
        prober.join()


def test_child_does_not_inherit_lock(path: Path) -> None:
    lock = LockFile.take(path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        lock.release()
        assert holder(path) is None
        LockFile.take(path).release()
        child.kill()


def test_released_lock_can_be_taken(path: Path) -> None:
    first = LockFile.take(path)
    with pytest.raises(Held):
        LockFile.take(path)
    first.release()
    LockFile.take(path).release()
    assert path.exists()


def test_replaced_file_is_not_in_place(path: Path) -> None:
    lock = LockFile.take(path)
    try:
        assert lock.is_in_place()
        path.unlink()
        assert not lock.is_in_place()
        path.touch()
        assert not lock.is_in_place()
    finally:
        lock.release()
