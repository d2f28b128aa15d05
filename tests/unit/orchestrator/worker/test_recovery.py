"""Making store and reality agree, on proof only."""

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
    """A running job with this lease."""
    job_id = home.running().id
    assert home.store.leases.take_over(job_id, old=WORKER, new=owner, now=NOW)
    return job_id


def bells(home: Home) -> int:
    """Return how many bells nobody has heard yet."""
    with closing(sqlite3.connect(home.path / "queue.db")) as queue:
        return int(queue.execute("SELECT count(*) FROM task").fetchone()[0])


def test_a_job_whose_worker_died_with_the_machine_is_taken_over(home: Home, app: App) -> None:
    job_id = home.running().id
    taken = take_over_orphan(app, identity(), busy=set(), now=NOW)
    assert taken is not None
    assert (taken.id, taken.owner, taken.status) == (job_id, identity(), Status.RUNNING)
    assert take_over_orphan(app, identity(), busy={job_id}, now=NOW) is None, "one that is looked after is no orphan"


def test_another_process_of_the_same_pid_is_no_worker(home: Home, app: App) -> None:
    impostor = dataclasses.replace(identity(os.getppid()), create_time=1.0)
    job_id = running_under(home, impostor)
    taken = take_over_orphan(app, identity(), busy=set(), now=NOW)
    assert taken is not None
    assert taken.id == job_id


def test_a_job_whose_worker_lives_is_left_alone_however_long_it_was_silent(home: Home, app: App) -> None:
    """Its heartbeat is ages old; that proves nothing."""
    job_id = running_under(home, identity(os.getppid()))
    assert take_over_orphan(app, identity(), busy=set(), now=NOW + 1e9) is None
    assert home.store.jobs.get(job_id).owner == identity(os.getppid())


def test_only_one_of_two_workers_takes_an_orphan_over(home: Home, app: App) -> None:
    job_id = home.running().id
    other = identity(os.getppid())
    assert home.store.leases.take_over(job_id, old=WORKER, new=other, now=NOW)
    assert not home.store.leases.take_over(job_id, old=WORKER, new=identity(), now=NOW)
    assert take_over_orphan(app, identity(), busy=set(), now=NOW) is None


def test_jobs_that_do_not_run_are_nobodys_orphans(home: Home, app: App) -> None:
    home.cancelled()
    home.queued()
    assert take_over_orphan(app, identity(), busy=set(), now=NOW) is None


def test_a_lost_bell_is_rung_again_and_once_for_every_message_that_is_due(home: Home, app: App) -> None:
    home.queued()
    for number in range(2):
        home.store.outbox.add(NewMessage(job_id=None, event="failed", key=f"k{number}", title="t", body="b"), NOW)
    wake_for_missed(app, NOW)
    assert bells(home) == 3
