"""Recovery of jobs without a worker and of lost signals."""

from __future__ import annotations

import dataclasses
import os
import sqlite3
from contextlib import closing

from jobs.model.job import NewMessage, ProcessIdentity
from jobs.model.states import Status
from orchestrator.core.app import App
from orchestrator.worker.recovery import take_over_orphan, wake_for_missed
from tests.unit.orchestrator.cli_homes import WORKER, Home
from workers.system.processes import identity

NOW = 1000.0


def running_under(home: Home, owner: ProcessIdentity) -> int:
    """Return the id of a running job with this lease."""
    job_id = home.running().id
    assert home.store.leases.take_over(job_id, old=WORKER, new=owner, now=NOW)
    return job_id


def signals(home: Home) -> int:
    """Return the number of signals in the queue."""
    with closing(sqlite3.connect(home.path / "queue.db")) as queue:
        return int(queue.execute("SELECT count(*) FROM task").fetchone()[0])


def test_orphan_of_earlier_boot(home: Home, app: App) -> None:
    job_id = home.running().id
    taken = take_over_orphan(app, identity(), busy=set(), now=NOW)
    assert taken is not None
    assert (taken.id, taken.owner, taken.status) == (job_id, identity(), Status.RUNNING)
    assert take_over_orphan(app, identity(), busy={job_id}, now=NOW) is None, "this worker runs the job"


def test_reused_pid_is_no_worker(home: Home, app: App) -> None:
    impostor = dataclasses.replace(identity(os.getppid()), create_time=1.0)
    job_id = running_under(home, impostor)
    taken = take_over_orphan(app, identity(), busy=set(), now=NOW)
    assert taken is not None
    assert taken.id == job_id


def test_job_of_running_worker_stays(home: Home, app: App) -> None:
    """An old heartbeat does not prove that the worker is gone."""
    job_id = running_under(home, identity(os.getppid()))
    assert take_over_orphan(app, identity(), busy=set(), now=NOW + 1e9) is None
    assert home.store.jobs.get(job_id).owner == identity(os.getppid())


def test_one_worker_takes_an_orphan_over(home: Home, app: App) -> None:
    job_id = home.running().id
    other = identity(os.getppid())
    assert home.store.leases.take_over(job_id, old=WORKER, new=other, now=NOW)
    assert not home.store.leases.take_over(job_id, old=WORKER, new=identity(), now=NOW)
    assert take_over_orphan(app, identity(), busy=set(), now=NOW) is None


def test_only_running_jobs_are_orphans(home: Home, app: App) -> None:
    home.cancelled()
    home.queued()
    assert take_over_orphan(app, identity(), busy=set(), now=NOW) is None


def test_lost_signals_are_sent_again(home: Home, app: App) -> None:
    home.queued()
    for number in range(2):
        home.store.outbox.add(NewMessage(job_id=None, event="failed", key=f"k{number}", title="t", body="b"), NOW)
    wake_for_missed(app, NOW)
    assert signals(home) == 3
