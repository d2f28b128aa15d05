"""Homes for tests: a store with a job in every state, written through the store's own API."""

from __future__ import annotations

import dataclasses
import hashlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

from configs.load import dump_job
from jobs.model.events import Event, Kind
from jobs.model.job import Incident, Job, ProcessIdentity
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.policies.decision import Decision
from orchestrator.cli.views.snapshot import MachineState
from orchestrator.store.store import Store
from workers.system.processes import identity

WORKER = ProcessIdentity(pid=1, create_time=1.0, boot_id="another boot")
"""A worker that does not run any more."""

NOW = 1_767_650_400.0
"""The present of golden files: Mon 2026-01-05 22:00 UTC."""

MACHINE = MachineState(kept_awake=None, mains=True, charge=81, free_bytes=4_000_000_000, all_bytes=16_000_000_000)
"""The machine of golden files."""

FAR_OFF_S = 1e6
LONG_DETAIL = (
    "ended by SIGKILL, sent by something other than lq; 6 crashes without 200 new iterations in between "
    "(retry.max_restarts: 5)"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """What a job's trainer has reported."""

    iteration: int
    train_loss: float
    val_loss: float
    it_s: float


class Home:
    """A home whose jobs are in the states that a test needs. No worker starts by itself."""

    def __init__(self, path: Path) -> None:
        """Create the home."""
        path.mkdir(mode=0o700)
        self.path = path
        self.jobs = path / "jobs"
        self.jobs.mkdir(mode=0o700)
        (path / "inbox").mkdir(mode=0o700)
        self.clock: Callable[[], float] = time.time
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
        now = self.clock()
        return self.store.jobs.submit(
            name=name, priority=0, iters=spec.iters, spec_json=text, prepare=prepare, now=now, group=group
        )

    def running(
        self, name: str = "job", *, seen: Seen | None = None, child: ProcessIdentity | None = None, **keys: Any
    ) -> Job:
        """Submit and claim a job, and record its trainer's reports. No other job may be queued."""
        job = self.queued(name, **keys)
        claimed = self.store.leases.claim(WORKER, self.clock())
        assert claimed is not None
        assert claimed.id == job.id
        attempt = self.store.attempts.begin(job.id, owner=WORKER, now=self.clock())
        if child is not None:
            self.store.attempts.set_child(attempt.id, child)
        if seen is not None:
            self._report(job.id, seen)
        return self.store.jobs.get(job.id)

    def attach_trainer(self, job_id: int) -> None:
        """Record this process as the trainer of a running job, so that the job counts as running."""
        self.store.attempts.set_child(self.store.attempts.of(job_id)[-1].id, identity())

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
        """Submit a job, and end its first attempt so that the job gets a status."""
        job = self.running(name, seen=seen, **keys)
        outcome = Outcome.DONE if status is Status.SUCCEEDED else Outcome.CRASHED
        ending = Ending(outcome=outcome, reason=reason, detail=detail)
        attempt = self.store.attempts.of(job.id)[-1]
        self.store.attempts.end(attempt.id, ending=ending, exit_code=None, signal=None, now=self.clock())
        not_before = self.clock() + FAR_OFF_S if status is Status.WAITING else None
        decision = Decision(status=status, reason=reason, detail=detail, not_before=not_before)
        return self.store.leases.settle(job.id, decision, owner=WORKER, now=self.clock())

    def cancelled(self, name: str = "job") -> Job:
        """Submit a job and cancel it before it runs. No other job may be queued."""
        return self.store.jobs.cancel(self.queued(name).id, self.clock())

    def _report(self, job_id: int, seen: Seen) -> None:
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
        reports = [(Kind.PROGRESS, progress), (Kind.VALIDATION, measured | {"seconds": 0.5, "row_losses": None})]
        events = [
            Event(seq=seq, time=self.clock(), awake=1.0, attempt=1, kind=kind, data=data)
            for seq, (kind, data) in enumerate(reports, start=1)
        ]
        assert self.store.events.ingest(
            job_id, events, offset_before=0, offset_after=1, steps_per_report=10, now=self.clock()
        )


def one_of_each(home: Home) -> dict[Status, int]:
    """Add a job in every status that lq sets; return the ids."""
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


def report(store: Store, job_id: int, losses: Sequence[float], **memory: int) -> None:
    """Record ten iterations for each of these losses."""
    events = [
        Event(
            seq=seq + 10,
            time=NOW,
            awake=1.0,
            attempt=1,
            kind=Kind.PROGRESS,
            data={"iteration": 500 + 10 * seq, "losses": [loss] * 10, "it_s": 2.0, "tokens": 1, "memory": memory},
        )
        for seq, loss in enumerate(losses, start=1)
    ]
    ingest(store, job_id, events)


def ingest(store: Store, job_id: int, events: Sequence[Event]) -> None:
    before = store.events.offset(job_id)
    assert store.events.ingest(
        job_id, events, offset_before=before, offset_after=before + 1, steps_per_report=10, now=NOW
    )


def fill(home: Home) -> None:
    """Add a job in every status at NOW, memory figures, an incident and a paused queue."""
    home.clock = count(NOW - 7200, 60).__next__
    ids = one_of_each(home)
    home.attach_trainer(ids[Status.RUNNING])
    losses = [2 - number / 40 for number in range(40)]
    report(home.store, ids[Status.RUNNING], losses, footprint=7 * 10**9, peak=6 * 10**9, limit=10**10)
    incident = Incident(
        job_id=ids[Status.RUNNING], attempt=1, time=NOW - 60, code=Reason.KILLED.value, text="x", evidence={}
    )
    home.store.incidents.add(incident)
    home.store.jobs.hold(home.queued("held").id, "held by the user", NOW)
    home.store.queue.pause("jobs 3 and 4 crashed within ten minutes", NOW - 300)


def contents(folder: Path) -> dict[str, object]:
    """Return the contents of a folder except caches, databases as their rows, to compare before and after."""
    names = {path: path.relative_to(folder) for path in sorted(folder.rglob("*"))}
    return {str(name): _content(path) for path, name in names.items() if name.parts[0] != "cache"}


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
