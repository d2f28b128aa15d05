"""Who is on duty: whether a worker runs, starting one, sending it home. Light; being the worker is worker.py's."""

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
from workers.process.lock import holder, named_in
from workers.system import processes

LEAVE = signal.SIGUSR2
"""Goes home and leaves the children running; TERM has them checkpoint and pause first."""

START_TIMEOUT_S = 20.0


def running(home: Home) -> dict[str, Any] | None:
    """Return what the living worker says of itself (pid, create_time, boot_id, started_at), None where none lives."""
    content = holder(home.worker_lock)
    who = named_in(content) if content is not None else None
    # Between taking the lock and writing its name, a new worker still stands behind the name of the last one.
    return content if who is not None and processes.is_alive(who) else None


def start_detached(home: Home) -> int:
    """Start a worker that outlives this terminal; return its pid. One that runs already is as good.

    Raises:
        LqError: it did not start; says why.
    """
    present = running(home)
    if present is not None:
        return int(present["pid"])
    home.ensure()
    errors = home.start_log
    with os.fdopen(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600), "wb") as stderr:
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
            popen.returncode = 0  # it is not ours to wait for; without this Popen would warn when it is forgotten
            return int(present["pid"])
        if popen.poll() is not None:
            break
        time.sleep(0.02)
    lines = errors.read_text(errors="replace").strip().splitlines()
    raise LqError(f"the worker did not start: {lines[-1] if lines else 'no answer'}; try it in front of you: lq worker")


def stop(home: Home, *, leave_running: bool, timeout_s: float) -> ProcessIdentity:
    """Send the worker home and wait until it is gone.

    Args:
        home: whose worker.
        leave_running: leave the children running instead of pausing them.
        timeout_s: how long to wait.

    Raises:
        NoWorker: none runs.
        LqError: it is still there after the time; nothing is lost by waiting longer.
    """
    present = running(home)
    who = named_in(present) if present is not None else None
    if who is None:
        raise NoWorker(f"no worker runs for {home.path}, so none has to be stopped; see: lq status")
    processes.signal_one(who, LEAVE if leave_running else signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while processes.is_alive(who):
        if time.monotonic() > deadline:
            raise LqError(
                f"worker {who.pid} still waits for a checkpoint after {timeout_s:.0f} s; see: lq worker status"
            )
        time.sleep(0.05)
    return who
