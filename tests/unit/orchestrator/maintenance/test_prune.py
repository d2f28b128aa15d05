"""`lq prune`: what goes, why the rest stays, and bytes that are true although files have several names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from jobs.model.errors import LqError
from jobs.model.job import Job
from jobs.model.job_dir import JobDir
from jobs.model.outcomes import Reason
from jobs.model.states import Status
from orchestrator.core.app import App
from orchestrator.maintenance import prune as tidying
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import Home
from tests.unit.orchestrator.job_files import damage, disk_used, publish, save
from workers.checkpoints import storage
from workers.checkpoints.storage import ADAPTERS
from workers.process.lock import sole


@pytest.fixture
def job(home: Home) -> Job:
    """Give a job that succeeded, to which nobody goes back, with six checkpoints; the third is the best."""
    made = home.ended(Status.SUCCEEDED, Reason.COMPLETED)
    for iteration, loss in ((50, 4.0), (100, 3.0), (150, 1.0), (200, 2.0), (250, 2.0), (300, 2.5)):
        save(made, iteration, loss)
    return made


def folder(job: Job) -> JobDir:
    return job.dir


def standing(job: Job) -> list[int]:
    return [found.iteration for found in storage.listed(folder(job).checkpoints)]


def test_what_is_said_to_go_goes_and_the_disk_gets_back_what_was_said(app: App, job: Job) -> None:
    publish(app, job)
    os.link(folder(job).checkpoints / "step-0000050" / ADAPTERS, Path(job.job_dir) / "a-name-of-the-users")
    before, plan = disk_used(Path(job.job_dir)), tidying.planned(app, job)
    assert standing(job) == [50, 100, 150, 200, 250, 300], "a plan changes nothing"
    done = tidying.carry_out(app, job)
    assert done.going == plan.going
    assert standing(job) == [150, 250, 300]
    assert before - disk_used(Path(job.job_dir)) == plan.freed > 0
    assert tidying.carry_out(app, job).going == ()


def test_each_byte_that_stays_is_counted_once(app: App, job: Job) -> None:
    tidying.carry_out(app, job)
    publish(app, job)
    entries = tidying.planned(app, job).entries
    plain = sum(path.stat().st_size for path in Path(job.job_dir).glob("*.yaml"))
    about = sum(path.stat().st_size for path in folder(job).adapters.glob("*.json"))
    assert sum(entry.bytes for entry in entries) == disk_used(Path(job.job_dir)) - plain - about
    assert "the same file as another that stays" in entries[-1].because


def test_the_command_says_why_each_stays(home: Home, app: App, job: Job) -> None:
    lq = InProcess(home.path)
    (told,) = lq.json("prune", job.id, "--dry-run")["jobs"]
    assert [set(entry) for entry in told["entries"]] == [{"path", "bytes", "kept", "because"}] * 6
    assert {Path(entry["path"]).name for entry in told["entries"] if entry["kept"]} == {
        "step-0000150",
        "step-0000250",
        "step-0000300",
    }
    assert told["bytes"] == sum(entry["bytes"] for entry in told["entries"] if not entry["kept"])
    said = lq("prune", job.id).out
    assert "3 deleted" in said
    assert "best by validation" in said
    assert "nothing to delete" in lq("prune", "--all").out
    assert standing(job) == [150, 250, 300]


def test_nothing_goes_while_the_newest_does_not_verify_and_the_remedy_is_named(app: App, job: Job) -> None:
    damage(folder(job).checkpoints / "step-0000300" / ADAPTERS)
    done = tidying.carry_out(app, job)
    assert done.going == ()
    assert f"lq verify {job.id} --set-aside" in done.entries[0].because
    assert standing(job) == [50, 100, 150, 200, 250, 300]


def test_what_killed_processes_and_damage_left_goes_too(app: App, job: Job) -> None:
    where = folder(job).checkpoints
    tidying.carry_out(app, job)
    shutil.copytree(where / "step-0000300", where / ".step-0000350.partial")
    shutil.copytree(where / "step-0000300", where / ".step-0000100.pruned")
    (where / "step-0000250").rename(where / ".step-0000250.replaced")
    damage(save(job, 400).adapters)
    storage.newest_valid(where, tidying.asked_for(app, job.id)[1], set_aside_by="the trainer")
    going = {entry.path.name: entry.because for entry in tidying.carry_out(app, job).going}
    assert set(going) == {".step-0000350.partial", ".step-0000100.pruned", "step-0000400.bad"}
    assert "its sha256 differs" in going["step-0000400.bad"]
    assert standing(job) == [150, 250, 300], "one that was being replaced has its name again"
    assert {path.name for path in where.iterdir()} == {"step-0000150", "step-0000250", "step-0000300"}


def test_a_bad_checkpoint_stays_where_no_good_one_has_taken_its_place(app: App, home: Home) -> None:
    job = home.ended(Status.FAILED, Reason.CRASHED)
    damage(save(job, 100).adapters)
    storage.newest_valid(folder(job).checkpoints, tidying.asked_for(app, job.id)[1], set_aside_by="the trainer")
    (entry,) = tidying.carry_out(app, job).entries
    assert (entry.path.name, entry.kept) == ("step-0000100.bad", True)


def test_two_that_delete_at_once_do_not_meet(app: App, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tidying, "WAIT_S", 0.05)
    with sole(folder(job).checkpoints, wait_s=0) as mine:
        assert mine
        with sole(folder(job).checkpoints, wait_s=0) as other:
            assert not other
        with pytest.raises(LqError, match="something else deletes"):
            tidying.carry_out(app, job)
    assert standing(job) == [50, 100, 150, 200, 250, 300]
    assert tidying.carry_out(app, job).going


def test_a_job_without_checkpoints_has_nothing_to_delete(home: Home, app: App) -> None:
    job = home.queued()
    assert tidying.carry_out(app, job).entries == ()
    shutil.rmtree(job.job_dir)
    assert tidying.carry_out(app, job).entries == ()
    assert "it has no checkpoints" in InProcess(home.path)("prune", job.id).out
