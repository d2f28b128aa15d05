"""`lq clean`: what old jobs left goes; their rows, reports and job files stay, and so does everything else."""

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

STAYS = {"config.yaml", "report"}
DAY_S = 24 * 3600.0


def finished(home: Home, status: Status = Status.SUCCEEDED, *, days_ago: float = 0.0) -> Job:
    """Add a job that has ended, with everything that a finished job has."""
    job = home.ended(status, Reason.COMPLETED if status is Status.SUCCEEDED else Reason.CRASHED)
    for iteration, loss in ((50, 1.0), (100, 2.0)):
        save(job, iteration, loss)
    with app_of(home) as app:
        publish(app, job)
    folder = Path(job.job_dir)
    (folder / "events.jsonl.gz").write_bytes(b"told")
    (folder / "train.log").write_text("wrote")
    (folder / "report").mkdir()
    (folder / "report" / "report.md").write_text("# a")
    with closing(sqlite3.connect(home.path / "lq.db")) as db, db:
        db.execute("UPDATE jobs SET ended_at = ended_at - ? WHERE id = ?", (days_ago * DAY_S, job.id))
    return job


def present(job: Job) -> set[str]:
    return {path.name for path in Path(job.job_dir).iterdir()}


def test_a_named_job_gives_the_disk_back_what_was_said_and_keeps_its_report(home: Home) -> None:
    job, lq = finished(home), InProcess(home.path)
    (told,) = lq.json("clean", job.id, "--dry-run")["jobs"]
    assert {"checkpoints", "adapters", "events.jsonl.gz", "train.log"} <= present(job), "a dry run deletes nothing"
    before = disk_used(Path(job.job_dir))
    said = lq("clean", job.id).out
    assert before - disk_used(Path(job.job_dir)) == told["bytes"] > 0
    assert (told["only_adapter"], len(told["paths"])) == (True, 4)
    assert present(job) == STAYS
    assert "the adapter lies nowhere else" in said
    assert "1 job cleaned" in said
    assert lq("clean", job.id).out == "nothing to clean\n"


def test_without_names_only_what_is_old_enough_goes(home: Home) -> None:
    young, old, older = (finished(home, days_ago=days) for days in (3, 31, 90))
    lq = InProcess(home.path)
    lq("clean", "--older-than", "80d")
    assert [present(job) == STAYS for job in (young, old, older)] == [False, False, True]
    lq("clean")
    assert [present(job) == STAYS for job in (young, old, older)] == [False, True, True]
    lq("clean", "--older-than", "24h")
    assert present(young) == STAYS


def test_adapters_can_be_kept_and_go_later(home: Home) -> None:
    job, lq = finished(home), InProcess(home.path)
    adapters = contents(job.dir.adapters)
    lq("clean", job.id, "--keep-adapters")
    assert present(job) == STAYS | {"adapters"}
    assert contents(job.dir.adapters) == adapters
    lq("clean", job.id)
    assert present(job) == STAYS


def test_a_cleaned_job_is_told_of_as_ever_and_cannot_be_retried(home: Home) -> None:
    job, lq = finished(home, Status.FAILED), InProcess(home.path)
    lq("clean", job.id)
    told = lq.json("show", job.id)["job"]
    assert told["cleaned_at"] == pytest.approx(time.time(), abs=60)
    assert "its report is kept" in lq("show", job.id).out
    assert "its log is gone" in lq("logs", job.id).err
    assert lq("retry", job.id, expect=5).err.endswith(f"begin it anew: lq submit {job.job_dir}/config.yaml\n")
    assert "report.md" in lq("report", job.id).out
    assert home.queued().id == job.id + 1


def test_a_live_job_is_not_touched(home: Home) -> None:
    job, lq = finished(home, Status.FAILED, days_ago=99), InProcess(home.path)
    home.store.jobs.retry(job.id, time.time())
    before = contents(Path(job.job_dir))
    assert lq("clean").out == "nothing to clean\n"
    assert lq("clean", job.id, expect=5).err.startswith(f"lq: job {job.id} is queued; only jobs that have ended")
    assert contents(Path(job.job_dir)) == before


def test_a_folder_in_which_a_trainer_works_is_passed_over(home: Home) -> None:
    job, lq = finished(home, days_ago=99), InProcess(home.path)
    lock = LockFile.take(job.dir.lock)
    try:
        assert "a trainer still works" in lq("clean").err
        assert "a trainer still works" in lq("clean", job.id, expect=5).err
    finally:
        lock.release()
    assert "checkpoints" in present(job)


@pytest.mark.parametrize("way", ["a link", "another place"])
def test_nothing_outside_the_jobs_folder_goes(home: Home, tmp_path: Path, way: str) -> None:
    job, lq = finished(home, days_ago=99), InProcess(home.path)
    elsewhere = tmp_path / "elsewhere"
    shutil.move(job.job_dir, elsewhere)
    if way == "a link":
        Path(job.job_dir).symlink_to(elsewhere)
    else:
        with closing(sqlite3.connect(home.path / "lq.db")) as db, db:
            db.execute("UPDATE jobs SET job_dir = ? WHERE id = ?", (str(elsewhere), job.id))
    before = contents(elsewhere)
    assert "delete it yourself" in lq("clean", job.id, expect=5).err
    assert contents(elsewhere) == before


def test_a_link_in_the_folder_goes_and_what_it_leads_to_stays(home: Home, tmp_path: Path) -> None:
    job = finished(home)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    (Path(job.job_dir) / "link").symlink_to(tmp_path / "precious")
    InProcess(home.path)("clean", job.id)
    assert present(job) == STAYS
    assert (tmp_path / "precious" / "file").read_text() == "x"


def answered(home: Home, job: Job, answer: str) -> tuple[int, str]:
    """Type `lq clean ID` on a terminal and answer its question; return the exit code and what was shown."""
    outer, inner = pty.openpty()
    try:
        typed = subprocess.Popen(
            [BESIDE_PYTHON / "lq", "clean", str(job.id)],
            stdin=inner,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | {"LQ_HOME": str(home.path)},
        )
        os.write(outer, f"{answer}\n".encode())
        shown, _ = typed.communicate(timeout=60)
        return typed.returncode, shown
    finally:
        os.close(outer)
        os.close(inner)


def test_a_person_is_asked_before_the_only_adapter_goes(home: Home) -> None:
    job = finished(home)
    code, shown = answered(home, job, "n")
    assert code == 130
    assert "the finished adapter of 1 job goes and lies nowhere else" in shown
    assert "adapters" in present(job)
    code, shown = answered(home, job, "y")
    assert code == 0
    assert present(job) == STAYS


def test_an_adapter_that_was_published_is_not_the_only_one(home: Home, tmp_path: Path) -> None:
    target = tmp_path / "published"
    job = home.queued(adapter_path=str(target))
    home.store.jobs.cancel(job.id, time.time())
    save(job, 50)
    with app_of(home) as app:
        publish(app, job)
    lq = InProcess(home.path)
    (told,) = lq.json("clean", job.id, "--dry-run")["jobs"]
    assert told["only_adapter"] is False
    before = contents(target)
    lq("clean", job.id)
    assert contents(target) == before
    assert json.loads((target / "lq.json").read_text())["files"][BEST]


def test_one_that_was_killed_in_the_midst_is_finished_by_the_next(home: Home) -> None:
    job = finished(home)
    home.store.jobs.mark_cleaned(job.id, time.time())
    shutil.rmtree(job.dir.checkpoints)
    InProcess(home.path)("clean", job.id)
    assert present(job) == STAYS
