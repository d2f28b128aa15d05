"""Who lives: told from pid, start and boot, never from a pid alone."""

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
from workers.system.processes import battery, footprint_bytes, identity, is_alive, signal_group, signal_one

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "print('up', flush=True); import time; time.sleep(60)"])
print(child.pid, flush=True)
child.wait()
"""


@contextmanager
def running(code: str = "print('up', flush=True); input()") -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own, ended at the end."""
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


def test_this_process_lives_and_knows_itself() -> None:
    me = identity()
    assert me.pid == os.getpid()
    assert me == identity(me.pid)
    assert is_alive(me)
    assert footprint_bytes() > 1 << 20


def test_a_process_that_has_ended_is_dead_even_before_its_parent_looks() -> None:
    with running() as process:
        who = identity(process.pid)
        assert is_alive(who)
        process.send_signal(signal.SIGKILL)
        until(lambda: not is_alive(who), "it to die")  # a zombie, for nobody has waited for it
        assert process.returncode is None
        os.kill(process.pid, 0)  # its pid is still taken
        process.wait(10)
        assert not is_alive(who)


def test_a_pid_that_came_round_is_another_process() -> None:
    me = identity()
    assert not is_alive(dataclasses.replace(me, create_time=me.create_time - 10))
    assert not is_alive(dataclasses.replace(me, create_time=me.create_time + 10))
    assert is_alive(dataclasses.replace(me, create_time=me.create_time + 0.5))  # the clock was set right


def test_a_process_of_an_earlier_boot_is_dead() -> None:
    assert not is_alive(dataclasses.replace(identity(), boot_id="the boot before"))


def test_nobody_is_told_by_a_pid_that_is_not_there() -> None:
    with running() as process:
        who = identity(process.pid)
        process.kill()
        process.wait(10)
    assert not is_alive(who)
    assert not signal_one(who, signal.SIGTERM)
    assert not signal_group(who, signal.SIGTERM)
    with pytest.raises(ProcessLookupError):
        identity(who.pid)


def test_a_signal_reaches_the_one_it_is_meant_for() -> None:
    with running() as process:
        assert signal_one(identity(process.pid), signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM


def test_a_stranger_with_the_same_pid_is_not_signalled() -> None:
    with running() as process:
        stranger = dataclasses.replace(identity(process.pid), create_time=1.0)
        assert not signal_one(stranger, signal.SIGKILL)
        assert not signal_group(stranger, signal.SIGKILL)
        assert process.poll() is None


def test_a_signal_to_the_group_reaches_what_the_child_started() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with process:
        try:
            assert process.stdout is not None
            said = sorted((process.stdout.readline().strip(), process.stdout.readline().strip()))
            grandchild = identity(int(said[0]))
            assert said[1] == "up"
            assert signal_group(identity(process.pid), signal.SIGKILL)
            assert process.wait(10) == -signal.SIGKILL
            until(lambda: not is_alive(grandchild), "the grandchild to die")
        finally:
            process.kill()


def test_a_battery_is_told_as_a_share_or_not_at_all() -> None:
    found = battery()
    assert found is None or (0 <= found[0] <= 1 and isinstance(found[1], bool))


MOST = """
import mmap, resource
from workers.system.processes import address_space_share

assert address_space_share() is None
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, resource.RLIM_INFINITY))
before = address_space_share()
mmap.mmap(-1, 2 << 30).close()
print(before, address_space_share())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the most a process took")
def test_what_was_taken_of_the_address_space_for_a_moment_counts() -> None:
    done = subprocess.run([sys.executable, "-c", MOST], capture_output=True, text=True, check=True)
    before, after = map(float, done.stdout.split())
    assert before < 0.5 <= after < 1
