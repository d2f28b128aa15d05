"""The drop folder: a job file that comes to rest in it is submitted, then lies in accepted/ or rejected/.

A file is claimed by a rename, so nothing is lost and nobody submits it twice: whatever instant the worker dies in, the
file lies either in the folder, or claimed, or where it ends. What it became is recorded with its jobs in the store, by
its sha256, in the transaction that makes them, and a claimed file is looked up there first (`Inbox._judge`).
What may be taken at all is said in jobs/policies/inbox.py; how files look and where they are put, in dropped.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from configs.errors import one_line
from jobs.model.errors import ConfigInvalid, InvalidInput, LqError, NotAllowed
from jobs.model.job import Job, NewMessage
from jobs.model.states import Status
from jobs.policies import inbox as drops
from jobs.policies.inbox import Looks, Sighting
from orchestrator.core.app import App
from orchestrator.notify import messages
from orchestrator.notify.routing import wants
from orchestrator.submission.inbox_files import (
    CLAIMS,
    ERROR,
    candidates,
    entries,
    fault_of_folder,
    free,
    left_over,
    look_at,
    made,
)
from workers.files.atomic import fsync_file, write_atomically

LOOK_S = 4.0
"""Between two looks at a folder in which nothing happens; the hint is for speed only."""

SOON_S = 0.5
"""Between two looks while a file has not come to rest."""

CALM_S = 0.25
"""At least so long between two looks, however many hints come."""

TRY_AGAIN_S = 30.0
"""After a failure that is not the file's."""

log = logging.getLogger("lq.inbox")


class Inbox:
    """The drop folder of one home; one worker looks into it, from one thread."""

    def __init__(
        self,
        app: App,
        *,
        over: threading.Event | None = None,
        clock: Callable[[], float] = time.time,
        awake: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nothing seen.

        Args:
            app: store, settings, wake-up queue and the place.
            over: set when the worker goes home: nothing is submitted any more.
            clock: unix seconds.
            awake: seconds, for how long a file has rested.
        """
        self._app, self._clock, self._awake = app, clock, awake
        self.over = over or threading.Event()
        self.folder = app.home.inbox
        self._claims = self.folder / CLAIMS
        self._seen: dict[tuple[int, int], Sighting] = {}
        self._shut: str | None = None  # why nothing was taken when it was last looked at
        self._not_before = 0.0  # on the `awake` clock

    def look(self) -> bool:
        """Take in every file that has come to rest; return whether another one is about to."""
        if self._awake() < self._not_before:
            return False
        try:
            return not self._is_shut() and self._look()
        except (LqError, OSError) as error:
            log.error("%s is looked at again in %.0f s: %s", self.folder, TRY_AGAIN_S, error)
            self._postpone()
            return False

    def _look(self) -> bool:
        self._drop_empty_claims()
        claimed = list(left_over(self.folder))  # by a worker that died, or before a failure
        found = [*claimed, *candidates(self.folder)]
        rested = self._rested(found)
        if rested and not self._may_submit():
            return False
        for path in rested:
            if not self.over.is_set():
                self._take_in(path, recovered=path in claimed)
        return len(rested) < len(found)

    # --- whether ---

    def _is_shut(self) -> bool:
        """Say whether nothing may be taken from the folder, and tell it once."""
        fault = fault_of_folder(self.folder, make=True)
        if fault is not None and fault != self._shut:
            log.error("nothing is taken from %s: it %s", self.folder, fault)
            key = hashlib.sha256(fault.encode()).hexdigest()[:12]
            self._tell(messages.inbox_shut(self.folder, fault, key=f"{key}-{int(self._clock()) // 86400}"))
        self._shut = fault
        return fault is not None

    def _may_submit(self) -> bool:
        """Look at settings.yaml first: that it is broken is no fault of a dropped file."""
        try:
            self._app.settings()
        except ConfigInvalid as error:
            log.error("what was dropped waits until settings.yaml is mended: %s", error)
            self._postpone()
            return False
        return True

    def _rested(self, paths: Sequence[Path]) -> list[Path]:
        """Return those of the files that nobody writes any more, as far as one can see."""
        now = self._awake()
        seen: dict[tuple[int, int], Sighting] = {}
        rested = []
        for path in paths:
            looks = look_at(path)
            if looks is None:
                continue
            seen[looks.identity] = drops.sighted(self._seen.get(looks.identity), looks, now)
            if seen[looks.identity].rested(now):
                rested.append(path)
        self._seen = seen
        return rested

    # --- one file ---

    def _drop_empty_claims(self) -> None:
        for claim in entries(self._claims):
            if not entries(claim):
                with contextlib.suppress(OSError):
                    claim.rmdir()

    def _take_in(self, path: Path, *, recovered: bool) -> None:
        """Claim a file, submit it, put it where it ends.

        Args:
            path: in the folder, or claimed already.
            recovered: it was claimed before, and may have been submitted.
        """
        try:
            file = path if recovered else self._claim(path)
            if file is not None:
                self._judge(file, recovered=recovered)
        except (LqError, OSError) as error:
            log.error("%s waits, and is tried again in %.0f s: %s", one_line(path.name), TRY_AGAIN_S, error)
            self._postpone()

    def _claim(self, path: Path) -> Path | None:
        """Move a file out of everybody's way; None where it has gone."""
        self._claims.mkdir(mode=0o700, exist_ok=True)
        claim = Path(tempfile.mkdtemp(dir=self._claims, prefix=f"{self._clock():.0f}-"))
        try:
            path.rename(claim / path.name)
        except FileNotFoundError:
            claim.rmdir()
            return None
        fsync_file(claim)
        fsync_file(self.folder)
        return claim / path.name

    def _judge(self, file: Path, *, recovered: bool) -> None:
        looks = look_at(file)
        if looks is None:
            return
        known = self._seen.get(looks.identity)
        if known is None or known != drops.sighted(known, looks, self._awake()):
            return  # written in the very moment of the claim: it has to rest again, where it is now
        fault = drops.fault_of(looks, me=os.getuid())
        if fault is not None:
            self._reject(file, f"{file.name}: {fault}")
            return
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        before = self._app.store.jobs.from_inbox_file(sha256)
        if before and not recovered:
            self._reject(file, _submitted_already(file.name, before[-1]), tell=False)
            return
        try:
            jobs = self._submit(file, looks, sha256, before)
        except (InvalidInput, NotAllowed) as error:
            if not before:
                self._reject(file, _named(str(error), file))
                return
            jobs = before  # it was submitted, and what it is refused for now may be its own job's doing
        except (LqError, OSError):
            raise  # not the file's fault
        except Exception as error:
            # the border of this thread: one file must not end the drop folder for all others
            log.exception("%s: unexpected", one_line(file.name))
            self._reject(file, f"{file.name}: unexpected: {type(error).__name__}: {error} (worker.log shows where)")
            return
        if jobs:
            self._accept(file, jobs)

    def _submit(self, file: Path, looks: Looks, sha256: str, before: Sequence[Job]) -> Sequence[Job]:
        """Check a file and queue its jobs, all in one transaction, unless a worker that died queued them before.

        Returns:
            All of its jobs; none where it has to wait for the next look.
        """
        from configs import yaml_text
        from configs.paths import require_absolute
        from orchestrator.submission.submit import check_all, enqueue_all

        require_absolute(yaml_text.require_document(file))
        checked = check_all(self._app, [file])
        for one in checked:
            for note in one.notes:
                log.info("%s: %s", one_line(file.name), _named(note, file))
        if self.over.is_set() or look_at(file) != looks:
            return []  # the next worker's, or written while it was checked
        jobs = before or enqueue_all(self._app, checked, inbox_sha256=sha256)
        self._app.wakeup.wake()
        return jobs

    # --- where it ends ---

    def _accept(self, file: Path, jobs: Sequence[Job]) -> None:
        told = ", ".join(f"job {job.id} ({job.name})" for job in jobs)
        log.info("%s was dropped and submitted: %s", one_line(file.name), told)
        self._put(file, self.folder / "accepted" / file.name)

    def _reject(self, file: Path, because: str, *, tell: bool = True) -> None:
        """Put a file into rejected/, its error beside it and told first, so that no death leaves it there without."""
        name, line = one_line(file.name), one_line(" ".join(because.split()))
        target = free(made(self.folder / "rejected") / file.name)
        log.warning("%s was dropped and rejected: %s", name, line)
        again = f"mend it and move it back into {self.folder}, or: lq submit FILE" if tell else "nothing"
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self._clock()))
        write_atomically(target.with_name(target.name + ERROR), f"{line}\nrejected {when}\nnext: {again}\n")
        if tell:
            self._tell(messages.file_rejected(name, line, lies_at=target.parent, key=file.parent.name))
        self._put(file, target)

    def _put(self, file: Path, target: Path) -> None:
        final = free(made(target.parent) / target.name)
        file.rename(final)
        fsync_file(final.parent)
        with contextlib.suppress(OSError):
            file.parent.rmdir()

    def _tell(self, message: NewMessage) -> None:
        """Write a message where a service hears it; where settings.yaml cannot be read, it waits until it can."""
        try:
            heard = wants(self._app.settings().notify.everyone, message.event, job_on=None, job_tags=None)
        except ConfigInvalid:
            heard = ["unknown yet"]
        added = self._app.store.outbox.add(message, self._clock()) if heard else None
        if added is not None:
            self._app.wakeup.wake_for_delivery(added.id)

    def _postpone(self) -> None:
        self._not_before = self._awake() + TRY_AGAIN_S


class Porter(threading.Thread):
    """Looks after the drop folder for as long as a worker is on duty."""

    def __init__(self, inbox: Inbox) -> None:
        """Take the folder; the thread is left behind where it does not come to an end: it may die at any instant."""
        super().__init__(name="lq-inbox", daemon=True)
        self._inbox, self._over = inbox, inbox.over
        self._wake: Callable[[], None] = inbox.over.set

    def run(self) -> None:
        """Look whenever there is a hint, and every few seconds without one."""
        from orchestrator.core.file_watch import FolderWatch

        soon = self._inbox.look()
        with FolderWatch(self._inbox.folder) as bell:
            self._wake = bell.wake
            while not self._over.wait(CALM_S):
                bell.wait(SOON_S if soon else LOOK_S)
                if not self._over.is_set():
                    soon = self._inbox.look()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Come to an end, after the file in hand; a long check is not waited for."""
        self._over.set()
        self._wake()
        self.join(2 * LOOK_S)


def _named(text: str, file: Path) -> str:
    """Return an error with the file's own name in place of where it was claimed to."""
    return text.replace(str(file), file.name).replace(f"{file.parent}/", "")


def _submitted_already(name: str, job: Job) -> str:
    go_on = f"lq retry {job.id} lets it go on; " if job.status in (Status.FAILED, Status.CANCELLED) else ""
    return f"{name}: already submitted as job {job.id} ({job.status}); {go_on}to submit it again use lq submit"
