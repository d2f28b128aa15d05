"""Controls the worker from other processes: whether it runs, start, stop. The worker itself is in main.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

from jobs.model.errors import LqError, NoWorker
from jobs.model.job import ProcessIdentity
from orchestrator.core.paths import Home
from workers.process.lock import running_holder
from workers.system import processes

LEAVE = signal.SIGUSR2
"""Shuts the worker down and leaves the trainers running; after TERM they write a checkpoint and pause first."""

START_TIMEOUT_S = 20.0


def running(home: Home) -> dict[str, Any] | None:
    """Return what the running worker wrote about itself (pid, create_time, boot_id, started_at); None without one."""
    named = running_holder(home.worker_lock)
    return named[1] if named is not None else None


def start_detached(home: Home) -> int:
    """Start a worker that survives this terminal, if none runs; return the worker's pid."""
    present = running(home)
    if present is not None:
        return int(present["pid"])
    home.ensure()
    with os.fdopen(os.open(home.start_log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600), "wb") as stderr:
        popen = subprocess.Popen(
            [sys.executable, "-P", "-m", "orchestrator.cli", "worker"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            cwd="/",
            env=os.environ | {"LQ_HOME": str(home.path)},
            start_new_session=True,
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        present = running(home)
        if present is not None:
            popen.returncode = 0  # prevents Popen's warning about a child that was not waited for
            return int(present["pid"])
        if popen.poll() is not None:
            break
        time.sleep(0.02)
    lines = home.start_log.read_text(errors="replace").strip().splitlines()
    raise LqError(f"the worker did not start: {lines[-1] if lines else 'no output'}; to see more, run: lq worker")


def stop(home: Home, *, leave_running: bool, timeout_s: float) -> ProcessIdentity:
    """Shut the worker down and wait until its process has exited.

    Raises:
        NoWorker: no worker runs.
        LqError: the worker still runs after the time; it is safe to wait longer.
    """
    named = running_holder(home.worker_lock)
    if named is None:
        raise NoWorker(f"no worker runs for {home.path}; see: lq status")
    who, _ = named
    processes.signal_one(who, LEAVE if leave_running else signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while processes.is_alive(who):
        if time.monotonic() > deadline:
            raise LqError(
                f"worker {who.pid} still waits for a checkpoint after {timeout_s:.0f} s; see: lq worker status"
            )
        time.sleep(0.05)
    return who
