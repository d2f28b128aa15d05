"""What a child needs around it, and a job's logs: looked at without a child."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.settings import DiskSettings
from jobs.model.events import Kind
from jobs.model.job import Job
from jobs.model.job_dir import JobDir
from jobs.model.outcomes import Outcome, Reason
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from orchestrator.core.app import App
from orchestrator.worker import disk_watch, log_rotation
from orchestrator.worker.disk_watch import DiskWatch, floor_of, sparing
from tests.unit.orchestrator.cli_homes import Home
from tests.unit.orchestrator.job_files import damage
from workers.events import log as event_log
from workers.events.log import EventLog
from workers.files.atomic import older_log
from workers.process.lock import LockFile

SPEC = JobSpec(lq={"keep": {"last": 5, "best": 3, "milestones": "20%"}})


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Give an empty home, with little to keep free."""
    made = Home(tmp_path / "home")
    made.write_settings("disk: {floor: 1MB}\n")
    yield made
    made.store.close()


def folder(job: Job) -> JobDir:
    return job.dir


def told(job_dir: JobDir) -> None:
    with EventLog(job_dir.events, 1) as log:
        log.append(Kind.PHASE, phase="train")


def around(app: App, job: Job, pruned: list[JobSpec] | None = None) -> DiskWatch:
    return DiskWatch(app, folder(job), SPEC, (pruned if pruned is not None else []).append)


def test_where_all_is_as_it_should_be_nothing_is_said(app: App, home: Home) -> None:
    job = home.queued()
    looks = around(app, job)
    assert looks.look() is None
    told(folder(job))
    assert looks.look() is None
    assert disk_watch.ending(folder(job)) is None


@pytest.mark.parametrize("what", ["the folder", "the configuration"])
def test_a_folder_that_goes_ends_the_job_with_what_to_do(app: App, home: Home, what: str) -> None:
    job = home.queued()
    looks = around(app, job)
    looks.look()
    if what == "the folder":
        shutil.rmtree(job.job_dir)
    else:
        folder(job).config.unlink()
    assert "was deleted or moved away" in (looks.look() or "")
    assert looks.vanished
    ending = disk_watch.ending(folder(job))
    assert ending is not None
    assert (ending.outcome, ending.reason) == (Outcome.REFUSED, Reason.CONFIG_INVALID)
    assert "submit the job again" in ending.detail


def test_a_trainer_that_has_not_spoken_yet_is_not_taken_for_one_that_cannot_be_heard(app: App, home: Home) -> None:
    job = home.queued()
    looks = around(app, job)
    assert looks.look() is None
    told(folder(job))
    looks.look()
    folder(job).events.unlink()
    assert "writes where nobody reads" in (looks.look() or "")


def test_below_the_floor_checkpoints_go_first_and_milestones_stay(app: App, home: Home) -> None:
    home.write_settings("disk: {floor: 900000GB}\n")
    pruned: list[JobSpec] = []
    looks = around(app, home.queued(), pruned)
    assert "must stay free" in (looks.look() or "")
    (spec,) = pruned
    assert (spec.lq.keep.last, spec.lq.keep.best, spec.lq.keep.milestones) == (1, 1, "20%")
    assert spec == sparing(SPEC)
    assert spec.model_copy(update={"lq": SPEC.lq}) == SPEC


def test_settings_that_cannot_be_read_just_now_leave_the_default_floor(app: App, home: Home) -> None:
    assert floor_of(app) == 1 << 20
    home.write_settings("disk: {flor: 1MB}\n")
    assert floor_of(app) == DiskSettings().floor == 5 << 30


# --- logs ---


def test_logs_of_jobs_that_ended_while_nobody_looked_are_compressed_and_no_others(app: App, home: Home) -> None:
    ended = home.ended(Status.FAILED, Reason.CRASHED)
    held = home.ended(Status.FAILED, Reason.CRASHED)
    live = home.queued()
    for job in (ended, held, live):
        told(folder(job))
    lock = LockFile.take(folder(held).lock)
    log_rotation.pack_ended(app)
    lock.release()
    assert [folder(job).events.exists() for job in (ended, held, live)] == [False, True, True]
    assert len(event_log.read(folder(ended).events, 0).events) == 1
    log_rotation.pack_ended(app)
    assert not folder(held).events.exists()


def test_a_log_that_cannot_be_unpacked_does_not_stop_a_retry(tmp_path: Path) -> None:
    job_dir = JobDir(tmp_path)
    told(job_dir)
    event_log.pack(job_dir.events)
    log_rotation.open_log(job_dir)
    assert job_dir.events.exists()
    event_log.pack(job_dir.events)
    damage(event_log.packed(job_dir.events))
    log_rotation.open_log(job_dir)
    assert [path.name for path in tmp_path.iterdir()] == ["events.jsonl.gz.bad"], "it stays to be looked at"


def test_the_trainers_output_keeps_its_newest_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_rotation, "TRAIN_LOG_BYTES", 1000)
    job_dir = JobDir(tmp_path)
    log_rotation.cap_logs(job_dir)
    job_dir.log.write_text("x" * 5000 + "the end")
    log_rotation.cap_logs(job_dir)
    assert job_dir.log.stat().st_size == 0
    assert older_log(job_dir.log).read_text().endswith("the end")
    assert older_log(job_dir.log).stat().st_size == 1000
