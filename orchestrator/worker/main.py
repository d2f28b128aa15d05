"""The worker: one process a home, asleep in Huey's threads until the wake-up queue rings. Never imports mlx."""

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
from workers.process.lock import Held, LockFile
from workers.system import processes

MESSENGERS = 2
"""Threads beside the slots, so that a slow notification or a tick never waits for a night's training."""

HOMELESS_S = 30.0
"""After so long without its home a worker goes: somebody deleted it. A disk that comes back sooner is waited for."""

_STANDBY_S = 1.0
"""Between two tries of a worker that stands by."""

_LOG_BYTES, _LOG_FILES = 2_000_000, 3

log = logging.getLogger("lq.worker")


def run(home: Home, *, foreground: bool, standby: bool = False, say: Callable[[str], None] = lambda _: None) -> None:
    """Be the worker, until TERM or Ctrl-C.

    Args:
        home: whose jobs to run.
        foreground: show the log on stderr too.
        standby: where another worker has this home, wait until it is gone.
        say: tells the person in front of it what happens.

    Raises:
        NotAllowed: another worker has this home.
    """
    home.ensure()
    lock = _lock(home, standby)
    try:
        _start_log(home, foreground)
        _work(home, lock, say)
    finally:
        lock.release()


def _lock(home: Home, standby: bool) -> LockFile:
    """Take the home, in time; a signal ends the waiting as it ends any process."""
    while True:
        try:
            return LockFile.take(home.worker_lock)
        except Held as error:
            if not standby:
                other = running(home)
                who = f"pid {other['pid']}" if other else "starting just now"
                text = f"a worker already looks after {home.path} ({who}); stop it with: lq worker stop"
                raise NotAllowed(text) from error
        time.sleep(_STANDBY_S)


def _work(home: Home, lock: LockFile, say: Callable[[str], None]) -> None:
    """Open the store, answer the bell, wait for the end of the shift."""
    app = App(home)
    with app:
        slots = (
            app.settings().slots
        )  # a file that cannot be followed is better refused now than at three in the morning
        context = WorkerContext(app=app, owner=processes.identity())
        shift = Dispatcher(context, slots=slots)
        app.answers = shift
        consumer = app.wakeup.consumer(slots + MESSENGERS)
        over = threading.Event()
        pack_ended(app)  # before any trainer is started
        consumer.start()
        _listen(context, over)
        lock.write(context.owner, started_at=time.time(), slots=slots, lq=importlib.metadata.version("lq"))
        for job in app.store.jobs.release_paused_by_worker(context.clock()):
            log.info("job %d goes on", job.id)
        log.info("worker %d started", context.owner.pid)
        say(f"worker started (pid {context.owner.pid}); Ctrl-C stops it, and its jobs go on at the next start")
        shift.tick()
        with InboxThread(Inbox(app)):
            if not _stay(over, lock):
                log.error("%s is gone, or another one lies there", home.path)
                context.shutting_down.set()
        say("going home: running jobs write a checkpoint first")
        log.info("worker %d goes home", context.owner.pid)
        consumer.stop(graceful=True)
        shift.shut_down()
        log.info("worker %d is gone", context.owner.pid)


def _stay(over: threading.Event, lock: LockFile) -> bool:
    """Wait for the end of the shift; False where the home was lost before."""
    had_home = time.monotonic()
    while not over.wait(1.0):
        if lock.stands():
            had_home = time.monotonic()
        elif time.monotonic() - had_home >= HOMELESS_S:
            return False
    return True


def _listen(context: WorkerContext, over: threading.Event) -> None:
    """Install the signals, in place of Huey's. HUP is ignored: the terminal it comes from is not the worker's."""

    def shut_down(number: int, _frame: FrameType | None) -> None:
        context.leave_running = number == LEAVE
        context.shutting_down.set()
        over.set()

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
