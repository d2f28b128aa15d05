"""Homes to look at and to spoil: a store with a job in every state, put there through the store's own API."""

from __future__ import annotations

import dataclasses
import hashlib
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from configs.load import dump_job
from jobs.model.events import Event, Kind
from jobs.model.job import Job, ProcessIdentity
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.policies.decision import Decision
from orchestrator.store.store import Store

WORKER = ProcessIdentity(pid=1, create_time=1.0, boot_id="another boot")
"""Long gone."""

FAR_OFF_S = 1e6
LONG_DETAIL = (
    "ended by SIGKILL, sent by something other than lq; died 6 times without 200 new iterations in between "
    "(retry.max_restarts: 5)"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """What a job's trainer has told."""

    iteration: int
    train_loss: float
    val_loss: float
    it_s: float


class Home:
    """$LQ_HOME, whose jobs are wherever a test wants them; no worker starts by itself."""

    def __init__(self, path: Path) -> None:
        """Make it, with the settings that keep workers away."""
        path.mkdir(mode=0o700)
        self.path = path
        self.jobs = path / "jobs"
        self.jobs.mkdir(mode=0o700)
        (path / "inbox").mkdir(mode=0o700)
        self.write_settings("autostart: false\n")
        self.store = Store.open(path / "lq.db")

    def write_settings(self, text: str, *, mode: int = 0o600) -> None:
        """Write settings.yaml."""
        file = self.path / "settings.yaml"
        file.write_text(text)
        file.chmod(mode)

    def queued(self, name: str = "job", group: str | None = None, **keys: Any) -> Job:
        """Submit a job."""
        lq = {"name": name, "group": group} | keys.pop("lq", {})
        usual = {"model": "/models/tiny", "data": "/data/qa", "iters": 1000}
        spec = JobSpec(lq=lq, **usual | keys)

        def prepare(job_id: int) -> Path:
            folder = self.jobs / f"{job_id}-x"
            folder.mkdir()
            (folder / "config.yaml").write_text(dump_job(spec))
            return folder

        text = spec.model_dump_json()
        now = time.time()
        return self.store.jobs.submit(
            name=name, priority=0, iters=spec.iters, spec_json=text, prepare=prepare, now=now, group=group
        )

    def running(
        self, name: str = "job", *, seen: Seen | None = None, child: ProcessIdentity | None = None, **keys: Any
    ) -> Job:
        """Submit a job, claim it, and let its trainer tell; no other job may be queued."""
        job = self.queued(name, **keys)
        claimed = self.store.leases.claim(WORKER, time.time())
        assert claimed is not None
        assert claimed.id == job.id
        attempt = self.store.attempts.begin(job.id, owner=WORKER, now=time.time())
        if child is not None:
            self.store.attempts.set_child(attempt.id, child)
        if seen is not None:
            self._tell(job.id, seen)
        return self.store.jobs.get(job.id)

    def ended(
        self,
        status: Status,
        reason: Reason,
        detail: str = "why",
        *,
        name: str = "job",
        seen: Seen | None = None,
        **keys: Any,
    ) -> Job:
        """Run a job into a state that an attempt's end leads to."""
        job = self.running(name, seen=seen, **keys)
        outcome = Outcome.DONE if status is Status.SUCCEEDED else Outcome.CRASHED
        ending = Ending(outcome=outcome, reason=reason, detail=detail)
        attempt = self.store.attempts.of(job.id)[-1]
        self.store.attempts.end(attempt.id, ending=ending, exit_code=None, signal=None, now=time.time())
        not_before = time.time() + FAR_OFF_S if status is Status.WAITING else None
        decision = Decision(status=status, reason=reason, detail=detail, not_before=not_before)
        return self.store.leases.settle(job.id, decision, owner=WORKER, now=time.time())

    def cancelled(self, name: str = "job") -> Job:
        """Cancel a job before it ran; no other job may be queued."""
        return self.store.jobs.cancel(self.queued(name).id, time.time())

    def _tell(self, job_id: int, seen: Seen) -> None:
        progress: dict[str, Any] = {
            "iteration": seen.iteration,
            "losses": [seen.train_loss] * 10,
            "it_s": seen.it_s,
            "tokens": 100,
        }
        measured: dict[str, Any] = {
            "iteration": seen.iteration,
            "loss": seen.val_loss,
            "standard_error": 0.1,
            "examples": 8,
        }
        told = [(Kind.PROGRESS, progress), (Kind.VALIDATION, measured | {"seconds": 0.5, "row_losses": None})]
        events = [
            Event(seq=seq, time=time.time(), awake=1.0, attempt=1, kind=kind, data=data)
            for seq, (kind, data) in enumerate(told, start=1)
        ]
        assert self.store.events.ingest(
            job_id, events, offset_before=0, offset_after=1, steps_per_report=10, now=time.time()
        )


def one_of_each(home: Home) -> dict[Status, int]:
    """Put a job into every state that this version leads to; return the ids."""
    seen = Seen(iteration=500, train_loss=1.25, val_loss=1.5, it_s=2.0)
    made = [
        home.cancelled("cancelled"),
        home.ended(Status.SUCCEEDED, Reason.COMPLETED, "trained to its last iteration", name="succeeded", seen=seen),
        home.ended(Status.FAILED, Reason.KILLED, LONG_DETAIL, name="failed", seen=seen),
        home.ended(Status.WAITING, Reason.CRASHED, "exit code 1", name="waiting"),
        home.ended(Status.PAUSED, Reason.STOPPED_BY_USER, "paused by the user", name="paused", seen=seen),
        home.running("running", seen=seen),
        home.queued("queued"),
    ]
    return {job.status: job.id for job in made}


def contents(folder: Path) -> dict[str, object]:
    """Return what lies in a folder, of databases their rows: equal before and after means that nothing changed."""
    return {str(path.relative_to(folder)): _content(path) for path in sorted(folder.rglob("*"))}


def _content(path: Path) -> object:
    if path.is_dir():
        return path.stat().st_mode
    if path.suffix == ".db":
        try:
            with closing(sqlite3.connect(path)) as connection:
                return list(connection.iterdump())
        except sqlite3.DatabaseError:  # a spoilt one
            pass
    return hashlib.sha256(path.read_bytes()).hexdigest()
