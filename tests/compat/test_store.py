"""Stores written by released versions open for ever and say what they said. store_v*.sql is never edited."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobs.model.job import Fit, ProcessIdentity, ServiceResult
from jobs.model.run_plan import Stage
from jobs.model.states import Status
from jobs.policies.retry import Crash
from orchestrator.store.store import Store
from orchestrator.store.versions import MIGRATIONS
from tests.compat import newest

HERE = Path(__file__).parent
WORKER = ProcessIdentity(pid=100, create_time=1790000000.25, boot_id="boot-a")


def write(path: Path, version: int) -> None:
    """Write the store that a version wrote."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript((HERE / f"store_v{version}.sql").read_text())


@pytest.fixture(params=[1, 2, 3])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """The store that a version wrote; what every version knows is the same in each."""
    write(tmp_path / "lq.db", request.param)
    with Store.open(tmp_path / "lq.db") as opened:
        opened.check()
        yield opened


@pytest.fixture
def store_v2(tmp_path: Path) -> Iterator[Store]:
    """The store that version 2 wrote."""
    write(tmp_path / "lq.db", 2)
    with Store.open(tmp_path / "lq.db") as opened:
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
    assert (first.outcome, first.reason, first.signal, first.last_iteration) == ("crashed", "killed", 9, 30)
    assert (second.ended_at, second.first_iteration, second.resumed_from, second.quality) == (
        None,
        20,
        "step-0000020",
        "exact",
    )
    assert store.crashes(2) == [Crash(gained=30, reason="killed")]
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
    assert [(found.code, found.evidence) for found in store.incidents(2)] == [("restart", {"consecutive_crashes": 1})]
    assert store.events_offset(2) == 1500


def test_the_outbox_is_as_it_was(store: Store) -> None:
    [message] = store.messages(3)
    assert (message.key, message.tags, message.next_try_at) == ("3-finished", ("phone",), 1790000200.0)
    assert message.services == (ServiceResult(service="json 1", delivered=False, tries=2, last_result="timed out"),)


def test_work_goes_on_where_it_stood(store: Store) -> None:
    store.resume_queue()
    assert [job.id for job in store.release_paused_by_worker(1790000300.0)] == [1]
    new = store.submit(name="n", priority=0, iters=1, spec_json="{}", prepare=lambda _: Path("/x"), now=1790000301.0)
    assert new.id == 6
    claimed = store.claim(WORKER, 1790000302.0)
    assert claimed is not None
    assert claimed.id == 1


# --- what version 2 added ---


def test_a_store_of_version_1_is_copied_before_it_is_changed_and_knows_nothing_it_was_not_told(tmp_path: Path) -> None:
    path, copy = tmp_path / "lq.db", tmp_path / "lq.db.v1.bak"
    write(path, 1)
    with closing(sqlite3.connect(path)) as database:
        before = list(database.iterdump())
    with Store.open(path) as store:
        assert store.stages(2) == []
        assert store.fit("any") is None
        assert (store.queue_state().paused_at, store.queue_state().because) == (None, None)
        assert [(attempt.stage, attempt.stderr_tail) for attempt in store.attempts(2)] == [(None, None), (None, None)]
    with closing(sqlite3.connect(copy)) as database:
        assert sorted(database.iterdump()) == sorted(before), "the copy is what the older program wrote"
    assert copy.stat().st_mode & 0o777 == 0o600
    written = copy.stat()
    with Store.open(path) as store:
        store.check()
    assert (copy.stat().st_ino, copy.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns), "copied once"


def test_the_stages_are_as_they_were(store_v2: Store) -> None:
    first, second = store_v2.stages(2)
    assert (first.first_example, first.batch_size, first.grad_checkpoint, first.segment) == (80, 4, True, None)
    assert second == Stage(
        first_example=80,
        batch_size=2,
        grad_accumulation_steps=4,
        grad_checkpoint=True,
        max_seq_length=2048,
        because="out_of_memory: batch 4 -> 2, accumulation 2 -> 4; the effective batch stays 8",
    )
    assert store_v2.stages(1) == []
    assert [attempt.stage for attempt in store_v2.attempts(2)] == [0, 2]


def test_what_fits_is_still_known(store_v2: Store) -> None:
    def known(batch: int, checkpoint: bool) -> Fit | None:
        words = ["m", "d", "lora", 16, 8, "adam", batch, 2048, checkpoint]
        return store_v2.fit(json.dumps(words, separators=(",", ":")))

    assert known(4, False) == Fit(fits=False, peak_bytes=9663676416, job_id=2)
    assert known(2, True) == Fit(fits=True, peak_bytes=None, job_id=2)
    assert known(1, True) is None


def test_the_queue_is_still_paused_and_says_why(store_v2: Store) -> None:
    state = store_v2.queue_state()
    assert state.paused_at == 1790000080.0
    assert (state.because or "").startswith("jobs 1 and 2 both died of crashed within ten minutes")
    assert store_v2.claim(WORKER, 1790000302.0) is None
    assert store_v2.resume_queue()
    assert store_v2.claim(WORKER, 1790000303.0) is not None


def test_the_last_lines_of_a_dead_trainer_are_still_there(store_v2: Store) -> None:
    assert store_v2.attempts(2)[0].stderr_tail == "loading\nRuntimeError: [METAL] Insufficient Memory"


def test_a_new_store_is_to_the_letter_what_the_migrations_come_to(tmp_path: Path) -> None:
    Store.open(tmp_path / "lq.db").close()
    assert MIGRATIONS.at_once is not None
    assert newest.statements(tmp_path / "lq.db") == newest.migrated() == MIGRATIONS.at_once.read_text()
