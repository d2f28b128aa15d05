"""Stores written by released versions open for ever and say what they said. store_v*.sql is never edited."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobs.job import ProcessIdentity, ServiceResult
from jobs.states import Status
from orchestrator.store.store import Store

HERE = Path(__file__).parent
WORKER = ProcessIdentity(pid=100, create_time=1790000000.25, boot_id="boot-a")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """The store that version 1 wrote."""
    with closing(sqlite3.connect(tmp_path / "lq.db")) as database:
        database.executescript((HERE / "store_v1.sql").read_text())
    with Store.open(tmp_path / "lq.db") as opened:
        opened.check()
        yield opened


def test_the_jobs_are_as_they_were(store: Store) -> None:
    assert [(job.id, job.name, job.status, job.priority, job.reason) for job in store.jobs()] == [
        (2, "second", Status.RUNNING, 5, None),
        (4, "fourth", Status.QUEUED, -1, None),
        (1, "qwen-ml-expert", Status.PAUSED, 0, "stopped_by_user"),
        (3, "third", Status.SUCCEEDED, 0, "completed"),
        (5, "fifth", Status.CANCELLED, 0, "stopped_by_user"),
    ]
    running = store.job(2)
    assert running.owner == WORKER
    assert running.child == ProcessIdentity(pid=102, create_time=1790000062.5, boot_id="boot-a")
    assert (running.iteration, running.train_loss, running.val_loss, running.it_s) == (30, 0.5, 3.0, 5.0)
    assert (running.attempts, running.eta_seconds, running.job_dir) == (2, 14.0, "/home/u/lq/jobs/2-second")
    assert store.spec_json(2) == '{"model":"m"}'


def test_the_attempts_are_as_they_were(store: Store) -> None:
    first, second = store.attempts(2)
    assert (first.outcome, first.reason, first.signal, first.last_iteration) == ("died", "killed", 9, 30)
    assert (second.ended_at, second.first_iteration, second.resumed_from, second.quality) == (
        None,
        20,
        "step-0000020",
        "exact",
    )
    assert store.deaths(2) == [30]
    assert store.self_tests(2) == {2: {"equal": True, "measured": 2.0, "recorded": 2.0}}


def test_what_was_seen_is_as_it_was(store: Store) -> None:
    assert [(point.attempt, point.iteration, point.train_loss) for point in store.points(2)] == [
        (1, 10, 2.0),
        (1, 20, 1.0),
        (2, 30, 0.5),
    ]
    assert [math.isnan(point.train_loss) for point in store.points(2, superseded=True)] == [False, False, True, False]
    assert [(found.iteration, found.row_losses) for found in store.validations(2)] == [(0, (2.5, 3.5))]
    assert [found.path for found in store.checkpoints(2)] == ["checkpoints/step-0000020"]
    assert [(found.code, found.evidence) for found in store.incidents(2)] == [("restart", {"deaths_in_a_row": 1})]
    assert store.events_offset(2) == 1500


def test_the_outbox_is_as_it_was(store: Store) -> None:
    [message] = store.messages(3)
    assert (message.key, message.tags, message.next_try_at) == ("3-finished", ("phone",), 1790000200.0)
    assert message.services == (ServiceResult(service="json 1", delivered=False, tries=2, last_result="timed out"),)


def test_work_goes_on_where_it_stood(store: Store) -> None:
    assert [job.id for job in store.release_paused_by_worker(1790000300.0)] == [1]
    new = store.submit(name="n", priority=0, iters=1, spec_json="{}", prepare=lambda _: Path("/x"), now=1790000301.0)
    assert new.id == 6
    claimed = store.claim(WORKER, 1790000302.0)
    assert claimed is not None
    assert claimed.id == 1
