"""`lq prune`: what it deletes, what it keeps and why, and disk space of files with several names."""

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
from orchestrator.maintenance import prune
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import Home
from tests.unit.orchestrator.job_files import damage, disk_used, publish, save
from workers.checkpoints import storage
from workers.checkpoints.storage import ADAPTERS
from workers.process.lock import sole


@pytest.fixture
def job(home: Home) -> Job:
    """Return a succeeded job with six checkpoints; the third is the best."""
    made = home.ended(Status.SUCCEEDED, Reason.COMPLETED)
    for iteration, loss in ((50, 4.0), (100, 3.0), (150, 1.0), (200, 2.0), (250, 2.0), (300, 2.5)):
        save(made, iteration, loss)
    return made


def folder(job: Job) -> JobDir:
    return job.dir


def remaining(job: Job) -> list[int]:
    return [found.iteration for found in storage.listed(folder(job).checkpoints)]


def test_prune_frees_what_it_plans(app: App, job: Job) -> None:
    publish(app, job)
    os.link(folder(job).checkpoints / "step-0000050" / ADAPTERS, Path(job.job_dir) / "link-of-the-user")
    before, plan = disk_used(Path(job.job_dir)), prune.plan_prune(app, job)
    assert remaining(job) == [50, 100, 150, 200, 250, 300], "a plan deletes nothing"
    done = prune.prune_job(app, job)
    assert done.deleted == plan.deleted
    assert remaining(job) == [150, 250, 300]
    assert before - disk_used(Path(job.job_dir)) == plan.bytes > 0
    assert prune.prune_job(app, job).deleted == ()


def test_linked_files_count_once(app: App, job: Job) -> None:
    prune.prune_job(app, job)
    publish(app, job)
    entries = prune.plan_prune(app, job).entries
    plain = sum(path.stat().st_size for path in Path(job.job_dir).glob("*.yaml"))
    about = sum(path.stat().st_size for path in folder(job).adapters.glob("*.json"))
    assert sum(entry.bytes for entry in entries) == disk_used(Path(job.job_dir)) - plain - about
    assert "same file" in entries[-1].because


def test_prune_gives_reasons(home: Home, app: App, job: Job) -> None:
    lq = InProcess(home.path)
    (plan,) = lq.json("prune", job.id, "--dry-run")["jobs"]
    assert len(plan["entries"]) == 6
    assert {Path(entry["path"]).name for entry in plan["entries"] if entry["kept"]} == {
        "step-0000150",
        "step-0000250",
        "step-0000300",
    }
    assert plan["bytes"] == sum(entry["bytes"] for entry in plan["entries"] if not entry["kept"])
    assert "best by validation" in lq("prune", job.id).out
    assert lq("prune", "--all").out == "nothing to delete\n"
    assert remaining(job) == [150, 250, 300]


def test_damaged_newest_keeps_all(app: App, job: Job) -> None:
    damage(folder(job).checkpoints / "step-0000300" / ADAPTERS)
    done = prune.prune_job(app, job)
    assert done.deleted == ()
    assert f"lq verify {job.id} --set-aside" in done.entries[0].because
    assert remaining(job) == [50, 100, 150, 200, 250, 300]


def test_leftovers_are_deleted(app: App, job: Job) -> None:
    where = folder(job).checkpoints
    prune.prune_job(app, job)
    shutil.copytree(where / "step-0000300", where / ".step-0000350.partial")
    shutil.copytree(where / "step-0000300", where / ".step-0000100.pruned")
    (where / "step-0000250").rename(where / ".step-0000250.replaced")
    damage(save(job, 400).adapters)
    storage.newest_valid(where, app.store.run_plans.get(job.id, app.store.spec(job.id)), set_aside_by="the trainer")
    deleted = {entry.path.name: entry.because for entry in prune.prune_job(app, job).deleted}
    assert set(deleted) == {".step-0000350.partial", ".step-0000100.pruned", "step-0000400.bad"}
    assert "its sha256 differs" in deleted["step-0000400.bad"]
    assert remaining(job) == [150, 250, 300], "a checkpoint that was being replaced gets its name back"
    assert {path.name for path in where.iterdir()} == {"step-0000150", "step-0000250", "step-0000300"}


def test_only_bad_checkpoint_is_kept(app: App, home: Home) -> None:
    job = home.ended(Status.FAILED, Reason.CRASHED)
    damage(save(job, 100).adapters)
    storage.newest_valid(
        folder(job).checkpoints, app.store.run_plans.get(job.id, app.store.spec(job.id)), set_aside_by="the trainer"
    )
    (entry,) = prune.prune_job(app, job).entries
    assert (entry.path.name, entry.kept) == ("step-0000100.bad", True)


def test_concurrent_prune_is_refused(app: App, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune, "WAIT_S", 0.05)
    with sole(folder(job).checkpoints, wait_s=0) as mine:
        assert mine
        with sole(folder(job).checkpoints, wait_s=0) as other:
            assert not other
        with pytest.raises(LqError, match="another process"):
            prune.prune_job(app, job)
    assert remaining(job) == [50, 100, 150, 200, 250, 300]
    assert prune.prune_job(app, job).deleted


def test_job_without_checkpoints(home: Home, app: App) -> None:
    job = home.queued()
    assert prune.prune_job(app, job).entries == ()
    shutil.rmtree(job.job_dir)
    assert prune.prune_job(app, job).entries == ()
    assert InProcess(home.path).json("prune", job.id)["jobs"][0]["entries"] == []
