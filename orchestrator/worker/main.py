"""The worker process: one for each home, asleep in Huey's threads until a wake-up signal arrives. Never imports mlx."""

from __future__ import annotations

import importlib.metadata
import logging
import logging.handlers
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

from jobs.model.errors import NotAllowed
from orchestrator.core.app import App
from orchestrator.core.context import WorkerContext
from orchestrator.core.paths import Home
from orchestrator.submission.inbox import Inbox, InboxThread
from orchestrator.worker.control import LEAVE, running
from orchestrator.worker.dispatcher import Dispatcher
from orchestrator.worker.log_rotation import pack_ended
from orchestrator.worker.recovery import write_missing_reports
from workers.process.lock import Held, LockFile
from workers.system import processes

EXTRA_THREADS = 2
"""Threads in addition to the slots, so that neither a slow notification nor a tick waits for a training run."""

HOMELESS_S = 30.0
"""Seconds after which a worker exits if its home is missing. A disk that returns sooner is waited for."""

_STANDBY_S = 1.0
_LOG_BYTES, _LOG_FILES = 2_000_000, 3

log = logging.getLogger("lq.worker")


def run(home: Home, *, foreground: bool, standby: bool = False, say: Callable[[str], None] = lambda _: None) -> None:
    """Run the worker until TERM or Ctrl-C. On standby, wait first until the home's other worker exits.

    Raises:
        NotAllowed: the home has another worker.
    """
    home.ensure()
    lock = _lock(home, standby)
    try:
        _start_log(home, foreground)
        _work(home, lock, say)
    finally:
        lock.release()


def _lock(home: Home, standby: bool) -> LockFile:
    while True:
        try:
            return LockFile.take(home.worker_lock)
        except Held as error:
            if not standby:
                other = running(home)
                who = f"pid {other['pid']}" if other else "starting"
                raise NotAllowed(
                    f"a worker runs already for {home.path} ({who}); to stop it: lq worker stop"
                ) from error
        time.sleep(_STANDBY_S)


def _work(home: Home, lock: LockFile, say: Callable[[str], None]) -> None:
    with App(home) as app:
        slots = app.settings().slots  # invalid settings are reported now, not at the first job
        context = WorkerContext(app=app, owner=processes.identity())
        app.handlers = dispatcher = Dispatcher(context, slots=slots)
        consumer = app.wakeup.consumer(slots + EXTRA_THREADS)
        shutdown = threading.Event()
        pack_ended(app)  # before any trainer starts
        consumer.start()
        _install_signals(context, shutdown)
        lock.write(context.owner, started_at=time.time(), slots=slots, lq=importlib.metadata.version("lq"))
        for job in app.store.jobs.release_paused_by_worker(context.clock()):
            log.info("job %d resumes", job.id)
        log.info("worker %d started", context.owner.pid)
        say(f"worker started (pid {context.owner.pid}); Ctrl-C stops it, and its jobs resume at the next start")
        dispatcher.tick()
        reports = threading.Thread(target=write_missing_reports, args=(context,), name="reports")
        reports.start()
        with InboxThread(Inbox(app)):
            if not _wait(shutdown, lock):
                log.error("%s was deleted or replaced", home.path)
                context.shutting_down.set()
        say("shutting down: running jobs write a checkpoint first")
        log.info("worker %d shuts down", context.owner.pid)
        consumer.stop(graceful=True)
        reports.join()
        dispatcher.shut_down()
        log.info("worker %d exits", context.owner.pid)


def _wait(shutdown: threading.Event, lock: LockFile) -> bool:
    """Wait for the shutdown; return False if the home was missing for too long."""
    home_present_at = time.monotonic()
    while not shutdown.wait(1.0):
        if lock.is_in_place():
            home_present_at = time.monotonic()
        elif time.monotonic() - home_present_at >= HOMELESS_S:
            return False
    return True


def _install_signals(context: WorkerContext, shutdown: threading.Event) -> None:
    """Install signal handlers in place of Huey's. HUP is ignored: it comes from a terminal the worker does not need."""

    def shut_down(number: int, _frame: FrameType | None) -> None:
        context.leave_running = number == LEAVE
        context.shutting_down.set()
        shutdown.set()

    for number in (signal.SIGTERM, signal.SIGINT, LEAVE):
        signal.signal(number, shut_down)
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
