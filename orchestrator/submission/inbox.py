"""The inbox: the worker submits each job file that settles in it, and moves it to accepted/ or rejected/.

The SHA-256 of a file is stored with its jobs, in the transaction that queues them. So a worker that is killed at
any instant loses no file and queues none twice: the next worker moves a file that arrived before the jobs of its
content were queued, and rejects one that arrived later.
The rules are in jobs/policies/inbox.py.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from configs.errors import one_line
from jobs.model.errors import InvalidInput, LqError, NotAllowed
from jobs.model.job import Job, NewMessage
from jobs.model.states import RETRIABLE
from jobs.policies import inbox
from jobs.policies.inbox import FileState, Sighting
from orchestrator.core.app import App
from orchestrator.notify import messages
from orchestrator.notify.publisher import Publisher
from orchestrator.submission.inbox_files import ERROR, candidates, fault_of_folder, file_state, free_name
from workers.files.atomic import fsync_file, write_atomically

LOOK_S = 4.0  # between two looks if nothing happens; a hint of the file watch only makes it faster
SOON_S = 0.5  # between two looks while a file has not settled
CALM_S = 0.25  # the least time between two looks, however many hints come
TRY_AGAIN_S = 30.0  # after a failure that is not the file's

log = logging.getLogger("lq.inbox")


class Inbox:
    """The inbox of one home; one worker looks into it, from one thread."""

    def __init__(self, app: App, *, awake: Callable[[], float] = time.monotonic) -> None:
        """Begin without any sighting; `awake` measures for how long a file has settled."""
        self._app, self._awake = app, awake
        self.stopping = threading.Event()  # set when the worker shuts down: nothing is submitted any more
        self.folder = app.home.inbox
        self._sightings: dict[tuple[int, int], Sighting] = {}
        self._accepted: set[str] = set()  # SHA-256 of the files that were moved to accepted/
        self._fault: str | None = None  # of the folder, at the last look
        self._not_before = 0.0  # on the `awake` clock

    def look(self) -> bool:
        """Submit every file that has settled; return whether another one is about to."""
        if self._awake() < self._not_before:
            return False
        try:
            if self._is_unsafe():
                return False
            paths = candidates(self.folder)
            settled = self._settled(paths)
            if settled:
                self._app.settings()  # if settings.yaml is invalid, the files wait
        except (LqError, OSError) as error:
            self._postpone(str(self.folder), error)
            return False
        for path in settled:
            if not self.stopping.is_set():
                self._take(path)
        return len(settled) < len(paths)

    def _is_unsafe(self) -> bool:
        """Return whether no file may be taken from the folder; report a new reason once."""
        fault = fault_of_folder(self.folder, make=True)
        if fault is not None and fault != self._fault:
            log.error("nothing is taken from %s: it %s", self.folder, fault)
            key = hashlib.sha256(fault.encode()).hexdigest()[:12]
            self._notify(messages.inbox_unusable(fault, key=f"{key}-{int(time.time()) // 86400}"))
        self._fault = fault
        return fault is not None

    def _settled(self, paths: Sequence[Path]) -> list[Path]:
        """Return the files that are complete, as far as their size and time tell."""
        now, sightings, settled = self._awake(), {}, []
        for path in paths:
            state = file_state(path)
            if state is not None:
                sighting = inbox.sighted(self._sightings.get(state.identity), state, now)
                sightings[state.identity] = sighting
                if sighting.settled(now):
                    settled.append(path)
        self._sightings = sightings
        return settled

    def _postpone(self, what: str, error: Exception) -> None:
        log.error("%s waits, and is tried again in %.0f s: %s", one_line(what), TRY_AGAIN_S, error)
        self._not_before = self._awake() + TRY_AGAIN_S

    # --- one file ---

    def _take(self, path: Path) -> None:
        """Submit a file and put it away; if that fails for another reason than the file, it waits."""
        try:
            state = file_state(path)
            if state is not None:
                self._judge(path, state)
        except (LqError, OSError) as error:
            self._postpone(path.name, error)

    def _judge(self, path: Path, state: FileState) -> None:
        fault = inbox.fault_of(state, me=os.getuid())
        if fault is not None:
            self._reject(path, state, f"{path.name}: {fault}")
            return
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        jobs: Sequence[Job] = self._app.store.jobs.from_inbox_file(sha256)
        if jobs and (sha256 in self._accepted or state.arrived > jobs[-1].submitted_at):
            last = jobs[-1]
            retry = f"lq retry {last.id} continues it; " if last.status in RETRIABLE else ""
            text = f"already submitted as job {last.id} ({last.status}); {retry}to submit it again use lq submit"
            self._reject(path, state, f"{path.name}: {text}", notify=False)
            return
        try:
            jobs = jobs or self._submit(path, state, sha256)
        except (InvalidInput, NotAllowed) as error:
            self._reject(path, state, str(error).replace(f"{path.parent}/", ""))
            return
        except (LqError, OSError):
            raise  # not the file's fault
        except Exception as error:
            # the border of this thread: one file must not end the inbox for all others
            log.exception("%s: unexpected", one_line(path.name))
            text = f"{path.name}: unexpected: {type(error).__name__}: {error} (worker.log has the traceback)"
            self._reject(path, state, text)
            return
        if jobs:
            names = ", ".join(f"job {job.id} ({job.name})" for job in jobs)
            log.info("%s was submitted: %s", one_line(path.name), names)
            self._put(path, self.folder / "accepted" / path.name)
            self._accepted.add(sha256)

    def _submit(self, path: Path, state: FileState, sha256: str) -> Sequence[Job]:
        """Check a file and queue its jobs in one transaction; return none if it has to wait for the next look."""
        from configs import yaml_text
        from configs.paths import require_absolute
        from orchestrator.submission.submit import check_all, enqueue_all

        require_absolute(yaml_text.require_document(path))
        checked = check_all(self._app, [path])
        for note in (note for job in checked for note in job.notes):
            log.info("%s: %s", one_line(path.name), note)
        if self.stopping.is_set() or file_state(path) != state:
            return []  # the next worker submits it, or it was written during the check
        jobs = enqueue_all(self._app, checked, inbox_sha256=sha256)
        self._app.wakeup.wake()
        return jobs

    def _reject(self, path: Path, state: FileState, because: str, *, notify: bool = True) -> None:
        """Write the error, report it, and then move the file, so that no crash leaves a rejected file without both."""
        name, lines = one_line(path.name), [one_line(" ".join(line.split())) for line in because.splitlines()]
        line = lines[0] + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else "")
        target = free_name(_made(self.folder / "rejected") / path.name)
        log.warning("%s was rejected: %s", name, line)
        remedy = f"fix it and move it back into {self.folder}, or: lq submit FILE" if notify else "nothing"
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time.time()))
        write_atomically(
            target.with_name(target.name + ERROR), "\n".join(lines) + f"\nrejected {when}\nnext: {remedy}\n"
        )
        if notify:
            key = f"{state.identity[1]}-{state.modified_ns}"
            self._notify(messages.file_rejected(name, line, folder=target.parent, key=key))
        self._put(path, target)

    def _put(self, path: Path, target: Path) -> None:
        final = free_name(_made(target.parent) / target.name)
        path.rename(final)
        fsync_file(final.parent)

    def _notify(self, message: NewMessage) -> None:
        Publisher(self._app).publish(message.event, lambda: message, now=time.time())


class InboxThread(threading.Thread):
    """Looks into the inbox while the worker runs."""

    def __init__(self, inbox: Inbox) -> None:
        """Watch an inbox; the thread is a daemon, because it may be killed at any instant."""
        super().__init__(name="lq-inbox", daemon=True)
        self._inbox = inbox
        self._wake: Callable[[], None] = inbox.stopping.set

    def run(self) -> None:
        """Look at every hint of the file watch, and every few seconds without one."""
        from orchestrator.core.file_watch import FolderWatch

        soon, stopping = self._inbox.look(), self._inbox.stopping
        with FolderWatch(self._inbox.folder) as watch:
            self._wake = watch.wake
            while not stopping.wait(CALM_S):
                watch.wait(SOON_S if soon else LOOK_S)
                if not stopping.is_set():
                    soon = self._inbox.look()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop after the present file; a long check is not waited for."""
        self._inbox.stopping.set()
        self._wake()
        self.join(2 * LOOK_S)


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
