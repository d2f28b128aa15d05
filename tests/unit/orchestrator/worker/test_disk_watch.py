"""What a trainer needs on the disk, and the logs of jobs; without a trainer."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.settings import DiskSettings
from jobs.model.events import PhaseEvent
from jobs.model.job import Job
from jobs.model.job_dir import JobDir
from jobs.model.outcomes import Outcome, Reason
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from orchestrator.core.app import App
from orchestrator.worker import disk_watch, log_rotation
from orchestrator.worker.disk_watch import DiskWatch, floor_of
from tests.unit.orchestrator.cli_homes import Home
from tests.unit.orchestrator.job_files import damage
from workers.events import log as event_log
from workers.events.log import EventLog
from workers.files.atomic import older_log
from workers.process.lock import LockFile

SPEC = JobSpec(lq={"keep": {"last": 5, "best": 3, "milestones": "20%"}})


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Create an empty home with a low disk floor."""
    created = Home(tmp_path / "home")
    created.write_settings("disk: {floor: 1MB}\n")
    yield created
    created.store.close()


def folder(job: Job) -> JobDir:
    return job.dir


def write_event(job_dir: JobDir) -> None:
    with EventLog(job_dir.events, 1) as log:
        log.append(PhaseEvent(phase="train"))


def watching(app: App, job: Job, pruned: list[JobSpec] | None = None) -> DiskWatch:
    return DiskWatch(app, folder(job), SPEC, (pruned if pruned is not None else []).append)


def test_normal_job_continues(app: App, home: Home) -> None:
    job = home.queued()
    watch = watching(app, job)
    assert watch.check() is None
    write_event(folder(job))
    assert watch.check() is None
    assert disk_watch.folder_gone_ending(folder(job)) is None


@pytest.mark.parametrize("deleted", ["folder", "config"])
def test_deleted_folder_ends_job(app: App, home: Home, deleted: str) -> None:
    job = home.queued()
    watch = watching(app, job)
    watch.check()
    if deleted == "folder":
        shutil.rmtree(job.job_dir)
    else:
        folder(job).config.unlink()
    assert watch.check() is not None
    assert watch.folder_gone
    ending = disk_watch.folder_gone_ending(folder(job))
    assert ending is not None
    assert (ending.outcome, ending.reason) == (Outcome.REFUSED, Reason.CONFIG_INVALID)
    assert job.job_dir in ending.detail


def test_deleted_event_log_stops_trainer(app: App, home: Home) -> None:
    job = home.queued()
    watch = watching(app, job)
    assert watch.check() is None, "the trainer has not written its first event"
    write_event(folder(job))
    watch.check()
    folder(job).events.unlink()
    assert watch.check() == watch.log_deleted is not None


def test_low_disk_prunes_before_stop(app: App, home: Home) -> None:
    home.write_settings("disk: {floor: 900000GB}\n")
    pruned: list[JobSpec] = []
    watch = watching(app, home.queued(), pruned)
    assert watch.check() == watch.disk_low is not None
    assert watch.evidence["free_disk_bytes"] < watch.evidence["required_disk_bytes"] == 900000 << 30
    (spec,) = pruned
    assert (spec.lq.keep.last, spec.lq.keep.best, spec.lq.keep.milestones) == (1, 1, "20%")


def test_invalid_settings_use_default_floor(app: App, home: Home) -> None:
    assert floor_of(app) == 1 << 20
    home.write_settings("disk: {flor: 1MB}\n")
    assert floor_of(app) == DiskSettings().floor == 5 << 30


# --- logs ---


def test_only_logs_of_ended_jobs_are_packed(app: App, home: Home) -> None:
    ended = home.ended(Status.FAILED, Reason.CRASHED)
    locked = home.ended(Status.FAILED, Reason.CRASHED)
    live = home.queued()
    for job in (ended, locked, live):
        write_event(folder(job))
    lock = LockFile.take(folder(locked).lock)
    log_rotation.pack_ended(app)
    lock.release()
    assert [folder(job).events.exists() for job in (ended, locked, live)] == [False, True, True]
    assert len(event_log.read(folder(ended).events, 0).events) == 1
    log_rotation.pack_ended(app)
    assert not folder(locked).events.exists()


def test_damaged_packed_log_is_renamed(tmp_path: Path) -> None:
    job_dir = JobDir(tmp_path)
    write_event(job_dir)
    event_log.pack(job_dir.events)
    log_rotation.open_log(job_dir)
    assert job_dir.events.exists()
    event_log.pack(job_dir.events)
    damage(event_log.packed(job_dir.events))
    log_rotation.open_log(job_dir)
    assert [path.name for path in tmp_path.iterdir()] == ["events.jsonl.gz.bad"]


def test_capped_log_keeps_newest_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_rotation, "TRAIN_LOG_BYTES", 1000)
    job_dir = JobDir(tmp_path)
    log_rotation.cap_logs(job_dir)
    job_dir.log.write_text("x" * 5000 + "the end")
    log_rotation.cap_logs(job_dir)
    assert job_dir.log.stat().st_size == 0
    assert older_log(job_dir.log).read_text().endswith("the end")
    assert older_log(job_dir.log).stat().st_size == 1000
