"""`lq clean`: what it deletes of jobs that have ended, and what it keeps."""

from __future__ import annotations

import json
import os
import pty
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from jobs.model.job import Job
from jobs.model.outcomes import Reason
from jobs.model.states import Status
from tests.harness import BESIDE_PYTHON, InProcess
from tests.unit.orchestrator.cli_homes import Home, contents
from tests.unit.orchestrator.job_files import app_of, disk_used, publish, save
from workers.checkpoints.publishing import BEST
from workers.process.lock import LockFile

KEPT = {"config.yaml", "report"}
DAY_S = 24 * 3600.0


def finished(home: Home, status: Status = Status.SUCCEEDED, *, days_ago: float = 0.0) -> Job:
    """Add a job that has ended, with all files of a finished job."""
    job = home.ended(status, Reason.COMPLETED if status is Status.SUCCEEDED else Reason.CRASHED)
    for iteration, loss in ((50, 1.0), (100, 2.0)):
        save(job, iteration, loss)
    with app_of(home) as app:
        publish(app, job)
    folder = Path(job.job_dir)
    (folder / "events.jsonl.gz").write_bytes(b"events")
    (folder / "train.log").write_text("output")
    (folder / "report").mkdir()
    (folder / "report" / "report.md").write_text("# a")
    with closing(sqlite3.connect(home.path / "lq.db")) as db, db:
        db.execute("UPDATE jobs SET ended_at = ended_at - ? WHERE id = ?", (days_ago * DAY_S, job.id))
    return job


def present(job: Job) -> set[str]:
    return {path.name for path in Path(job.job_dir).iterdir()}


def test_clean_frees_what_it_announces(home: Home) -> None:
    job, lq = finished(home), InProcess(home.path)
    (plan,) = lq.json("clean", job.id, "--dry-run")["jobs"]
    assert {"checkpoints", "adapters", "events.jsonl.gz", "train.log"} <= present(job), "a dry run deletes nothing"
    before = disk_used(Path(job.job_dir))
    lq("clean", job.id)
    assert before - disk_used(Path(job.job_dir)) == plan["bytes"] > 0
    assert (plan["only_adapter"], len(plan["paths"])) == (True, 4)
    assert present(job) == KEPT
    assert lq("clean", job.id).out == "nothing to clean\n"


def test_clean_selects_old_jobs(home: Home) -> None:
    young, old, older = (finished(home, days_ago=days) for days in (3, 31, 90))
    lq = InProcess(home.path)
    lq("clean", "--older-than", "80d")
    assert [present(job) == KEPT for job in (young, old, older)] == [False, False, True]
    lq("clean")
    assert [present(job) == KEPT for job in (young, old, older)] == [False, True, True]
    lq("clean", "--older-than", "24h")
    assert present(young) == KEPT


def test_keep_adapters(home: Home) -> None:
    job, lq = finished(home), InProcess(home.path)
    adapters = contents(job.dir.adapters)
    lq("clean", job.id, "--keep-adapters")
    assert present(job) == KEPT | {"adapters"}
    assert contents(job.dir.adapters) == adapters
    lq("clean", job.id)
    assert present(job) == KEPT


def test_cleaned_job_cannot_be_retried(home: Home) -> None:
    job, lq = finished(home, Status.FAILED), InProcess(home.path)
    lq("clean", job.id)
    assert lq.json("show", job.id)["job"]["cleaned_at"] == pytest.approx(time.time(), abs=60)
    assert lq("logs", job.id).err.startswith("note: ")
    assert f"lq submit {job.job_dir}/config.yaml" in lq("retry", job.id, expect=5).err
    assert "report.md" in lq("report", job.id).out
    assert home.queued().id == job.id + 1


def test_live_jobs_are_kept(home: Home) -> None:
    job, lq = finished(home, Status.FAILED, days_ago=99), InProcess(home.path)
    home.store.jobs.retry(job.id, time.time())
    before = contents(Path(job.job_dir))
    assert lq("clean").out == "nothing to clean\n"
    lq("clean", job.id, expect=5)
    assert contents(Path(job.job_dir)) == before


def test_locked_folder_is_skipped(home: Home) -> None:
    job, lq = finished(home, days_ago=99), InProcess(home.path)
    lock = LockFile.take(job.dir.lock)
    try:
        assert lq("clean").err.startswith(f"note: job {job.id}: ")
        lq("clean", job.id, expect=5)
    finally:
        lock.release()
    assert "checkpoints" in present(job)


@pytest.mark.parametrize("way", ["link", "other folder"])
def test_files_outside_jobs_folder_are_kept(home: Home, tmp_path: Path, way: str) -> None:
    job, lq = finished(home, days_ago=99), InProcess(home.path)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(job.job_dir, elsewhere)
    if way == "link":
        Path(job.job_dir).symlink_to(elsewhere)
    else:
        with closing(sqlite3.connect(home.path / "lq.db")) as db, db:
            db.execute("UPDATE jobs SET job_dir = ? WHERE id = ?", (str(elsewhere), job.id))
    before = contents(elsewhere)
    lq("clean", job.id, expect=5)
    assert contents(elsewhere) == before


def test_link_target_is_kept(home: Home, tmp_path: Path) -> None:
    job = finished(home)
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "file").write_text("x")
    (Path(job.job_dir) / "link").symlink_to(tmp_path / "target")
    InProcess(home.path)("clean", job.id)
    assert present(job) == KEPT
    assert (tmp_path / "target" / "file").read_text() == "x"


def answered(home: Home, job: Job, answer: str) -> tuple[int, str]:
    """Run `lq clean ID` on a terminal and answer its question; return the exit code and the output."""
    outer, inner = pty.openpty()
    try:
        process = subprocess.Popen(
            [BESIDE_PYTHON / "lq", "clean", str(job.id)],
            stdin=inner,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"LQ_HOME": str(home.path)},
        )
        os.write(outer, f"{answer}\n".encode())
        shown, _ = process.communicate(timeout=60)
        return process.returncode, shown
    finally:
        os.close(outer)
        os.close(inner)


def test_only_adapter_needs_confirmation(home: Home) -> None:
    job = finished(home)
    code, shown = answered(home, job, "n")
    assert code == 130
    assert "Delete?" in shown
    assert "adapters" in present(job)
    code, _ = answered(home, job, "y")
    assert code == 0
    assert present(job) == KEPT


def test_published_adapter_is_a_copy(home: Home, tmp_path: Path) -> None:
    target = tmp_path / "published"
    job = home.queued(adapter_path=str(target))
    home.store.jobs.cancel(job.id, time.time())
    save(job, 50)
    with app_of(home) as app:
        publish(app, job)
    lq = InProcess(home.path)
    (plan,) = lq.json("clean", job.id, "--dry-run")["jobs"]
    assert plan["only_adapter"] is False
    before = contents(target)
    lq("clean", job.id)
    assert contents(target) == before
    assert json.loads((target / "lq.json").read_text())["files"][BEST]


def test_interrupted_clean_is_completed(home: Home) -> None:
    job = finished(home)
    home.store.jobs.mark_cleaned(job.id, time.time())
    shutil.rmtree(job.dir.checkpoints)
    InProcess(home.path)("clean", job.id)
    assert present(job) == KEPT
