"""The worker: one process a home, asleep in Huey's threads until the doorbell rings. Never imports mlx."""

from __future__ import annotations

import logging
import logging.handlers
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from jobs.errors import LqError, NotAllowed, NoWorker
from jobs.job import ProcessIdentity
from orchestrator.app import App
from orchestrator.attempt import Night
from orchestrator.home import Home
from orchestrator.shift import Shift
from workers import process
from workers.lock import Held, LockFile, holder, named_in

SLOTS = 1
MESSENGERS = 2
"""Threads beside the slots, so that a slow notification or a tick never waits for a night's training."""

LEAVE = signal.SIGUSR2
"""Goes home and leaves the children running; TERM has them checkpoint and pause first."""

START_TIMEOUT_S = 20.0
_LOG_BYTES, _LOG_FILES = 2_000_000, 3

log = logging.getLogger("lq.worker")


def running(home: Home) -> dict[str, Any] | None:
    """Return what the living worker says of itself (pid, create_time, boot_id, started_at), None where none lives."""
    content = holder(home.worker_lock)
    return content if content is not None and named_in(content) is not None else None


def run(home: Home, *, foreground: bool, say: Callable[[str], None] = lambda _: None) -> None:
    """Be the worker, until TERM or Ctrl-C.

    Args:
        home: whose jobs to run.
        foreground: show the log on stderr too.
        say: tells the person in front of it what happens.

    Raises:
        NotAllowed: another worker has this home.
    """
    home.ensure()
    try:
        lock = LockFile.take(home.worker_lock)
    except Held as error:
        other = running(home)
        who = f"pid {other['pid']}" if other else "starting just now"
        raise NotAllowed(f"a worker already looks after {home.path} ({who}); stop it with: lq worker stop") from error
    try:
        _start_log(home, foreground)
        _work(home, lock, say)
    finally:
        lock.release()


def _work(home: Home, lock: LockFile, say: Callable[[str], None]) -> None:
    """Open the store, answer the bell, wait for the end of the shift."""
    app = App(home)
    with app:
        app.settings()  # a file that cannot be followed is better refused now than at three in the morning
        night = Night(app=app, owner=process.identity())
        shift = Shift(night, slots=SLOTS)
        app.answers = shift
        consumer = app.doorbell.consumer(SLOTS + MESSENGERS)
        over = threading.Event()
        consumer.start()
        _listen(night, over)
        lock.write(night.owner, started_at=time.time())
        for job in app.store.release_paused_by_worker(night.clock()):
            log.info("job %d goes on", job.id)
        log.info("worker %d started", night.owner.pid)
        say(f"worker started (pid {night.owner.pid}); Ctrl-C stops it, and its jobs go on at the next start")
        app.doorbell.ring()
        while not over.wait(1.0):
            pass
        say("going home: running jobs write a checkpoint first")
        log.info("worker %d goes home", night.owner.pid)
        consumer.stop(graceful=True)
        log.info("worker %d is gone", night.owner.pid)


def _listen(night: Night, over: threading.Event) -> None:
    """Install the signals, in place of Huey's. HUP is ignored: the terminal it comes from is not the worker's."""

    def go_home(number: int, _frame: FrameType | None) -> None:
        night.leave_running = number == LEAVE
        night.going_home.set()
        over.set()

    for number in (signal.SIGTERM, signal.SIGINT, LEAVE):
        signal.signal(number, go_home)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _start_log(home: Home, foreground: bool) -> None:
    file = logging.handlers.RotatingFileHandler(home.worker_log, maxBytes=_LOG_BYTES, backupCount=_LOG_FILES)
    handlers: list[logging.Handler] = [file]
    if foreground:
        handlers.append(logging.StreamHandler())
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("lq").setLevel(logging.INFO)


def start_detached(home: Home) -> int:
    """Start a worker that outlives this terminal; return its pid. One that runs already is as good.

    Raises:
        LqError: it did not start; says why.
    """
    present = running(home)
    if present is not None:
        return int(present["pid"])
    home.ensure()
    errors = home.path / "worker.start.log"
    with os.fdopen(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stderr:
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
        raise NoWorker(f"no worker runs for {home.path}")
    process.signal_one(who, LEAVE if leave_running else signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while process.is_alive(who):
        if time.monotonic() > deadline:
            raise LqError(
                f"worker {who.pid} still waits for a checkpoint after {timeout_s:.0f} s; see: lq worker status"
            )
        time.sleep(0.05)
    return who
