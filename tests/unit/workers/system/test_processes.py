"""Processes are identified by pid, start time and boot, never by the pid alone."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.harness import until
from workers.system.processes import footprint_bytes, identity, is_alive, signal_group, signal_one

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "print('up', flush=True); import time; time.sleep(60)"])
print(child.pid, flush=True)
child.wait()
"""


@contextmanager
def running(code: str = "print('up', flush=True); input()") -> Iterator[subprocess.Popen[str]]:
    """Run a process in its own session."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            yield process
        finally:
            process.kill()


def test_own_identity() -> None:
    me = identity()
    assert me.pid == os.getpid()
    assert me == identity(me.pid)
    assert is_alive(me)
    assert footprint_bytes() > 1 << 20


def test_zombie_is_not_alive() -> None:
    with running() as process:
        who = identity(process.pid)
        assert is_alive(who)
        process.send_signal(signal.SIGKILL)
        until(lambda: not is_alive(who), "it to exit")  # a zombie, because no process has waited for it
        assert process.returncode is None
        os.kill(process.pid, 0)  # its pid is still in use
        process.wait(10)
        assert not is_alive(who)


def test_reused_pid_is_another_process() -> None:
    me = identity()
    assert not is_alive(dataclasses.replace(me, create_time=me.create_time - 10))
    assert not is_alive(dataclasses.replace(me, create_time=me.create_time + 10))
    assert is_alive(dataclasses.replace(me, create_time=me.create_time + 0.5))  # a clock correction


def test_process_of_earlier_boot_is_gone() -> None:
    assert not is_alive(dataclasses.replace(identity(), boot_id="the boot before"))


def test_missing_process_gets_no_signal() -> None:
    with running() as process:
        who = identity(process.pid)
        process.kill()
        process.wait(10)
    assert not is_alive(who)
    assert not signal_one(who, signal.SIGTERM)
    assert not signal_group(who, signal.SIGTERM)
    with pytest.raises(ProcessLookupError):
        identity(who.pid)


def test_signal_reaches_process() -> None:
    with running() as process:
        assert signal_one(identity(process.pid), signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM


def test_reused_pid_gets_no_signal() -> None:
    with running() as process:
        other = dataclasses.replace(identity(process.pid), create_time=1.0)
        assert not signal_one(other, signal.SIGKILL)
        assert not signal_group(other, signal.SIGKILL)
        assert process.poll() is None


def test_group_signal_reaches_grandchild() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:
        try:
            assert process.stdout is not None
            lines = sorted((process.stdout.readline().strip(), process.stdout.readline().strip()))
            grandchild = identity(int(lines[0]))
            assert lines[1] == "up"
            assert signal_group(identity(process.pid), signal.SIGKILL)
            assert process.wait(10) == -signal.SIGKILL
            until(lambda: not is_alive(grandchild), "the grandchild to exit")
        finally:
            process.kill()
