"""The supervisor, with real trainers."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.load import dump_job
from jobs.model import run_plan
from jobs.model.events import EndedEvent, Kind
from jobs.model.job import ProcessIdentity
from jobs.model.job_dir import JobDir
from jobs.model.outcomes import Outcome, Reason
from jobs.model.spec import JobSpec
from jobs.policies.exits import classify
from tests.harness import until
from workers.events.log import EventLog, read
from workers.process import supervisor
from workers.process.lock import LockFile, holder
from workers.process.supervisor import Child, adopt, exited, log_tail, spawn
from workers.system import processes
from workers.system.clock import boot_id

GRACE_OVER = -1.0

STUBBORN = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
signal.pause()
"""


@pytest.fixture
def job_dir(tmp_path: Path) -> JobDir:
    """Create a job without a model: its trainer loads for a second or two, and then refuses."""
    folder = JobDir(tmp_path / "1-job")
    folder.path.mkdir()
    spec = JobSpec(model=str(tmp_path / "no-model"), data=str(tmp_path / "no-data"))
    folder.config.write_text(dump_job(spec))
    folder.run_plan.write_text(json.dumps(run_plan.to_json(run_plan.RunPlan.requested(spec))))
    return folder


@pytest.fixture
def stubborn(job_dir: JobDir) -> Iterator[Child]:
    """Start a child that ignores TERM."""
    popen = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, start_new_session=True)
    with popen:
        assert popen.stdout is not None
        assert popen.stdout.readline() == b"up\n"
        yield Child(processes.identity(popen.pid), job_dir, 1, popen=popen)
        popen.kill()


def ended(child: Child) -> None:
    until(lambda: not child.lives(), "the child to end")


def test_invalid_config_is_refused(job_dir: JobDir) -> None:
    job_dir.config.write_text("model: [not, a, name]\n")
    child = spawn(job_dir, 1)
    assert child.identity.boot_id == boot_id()
    ended(child)
    report = child.exit_report()
    assert (report.exit_code, report.signal, report.same_boot, report.stop_asked) == (78, None, True, False)
    assert report.ended is not None
    assert (report.ended.outcome, report.ended.reason) == (Outcome.REFUSED, Reason.CONFIG_INVALID)
    assert f"{job_dir.config}:1: model" in report.ended.detail
    ending = classify(report)
    assert (ending.outcome, ending.reason) == (Outcome.REFUSED, Reason.CONFIG_INVALID)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("{", "run_plan.json cannot be read"),
        ('{"version": 2, "stages": []}', "run_plan.json has version 2"),
    ],
)
def test_invalid_run_plan_is_refused(job_dir: JobDir, spoil: str, says: str) -> None:
    job_dir.run_plan.write_text(spoil)
    child = spawn(job_dir, 1)
    ended(child)
    ending = classify(child.exit_report())
    assert (ending.outcome, ending.reason) == (Outcome.REFUSED, Reason.CONFIG_INVALID)
    assert says in ending.detail


def test_missing_model_is_refused(job_dir: JobDir) -> None:
    child = spawn(job_dir, 1)
    content = until(lambda: holder(job_dir.lock), "the child to take its lock")
    ended(child)
    ending = classify(child.exit_report())
    assert (ending.outcome, ending.reason) == (Outcome.REFUSED, Reason.MODEL_MISSING)
    assert "no-model" in ending.detail
    assert holder(job_dir.lock) is None
    assert content.get("pid", child.identity.pid) == child.identity.pid
    assert [event.kind for event in read(job_dir.events, 0).events][:2] == [Kind.STARTED, Kind.PHASE]


def test_stop_while_loading_is_immediate(job_dir: JobDir) -> None:
    child = spawn(job_dir, 1)
    until(lambda: job_dir.events.exists(), "the child to give a sign")
    child.request_stop()
    first = child.stop_requested_at
    child.request_stop()
    assert child.stop_requested_at == first
    ended(child)
    report = child.exit_report()
    assert (report.exit_code, report.stop_asked, report.killed_by_lq) == (75, True, False)
    ending = classify(report)
    assert (ending.outcome, ending.reason) == (Outcome.STOPPED, Reason.STOPPED_BY_USER)
    assert ending.detail == "stopped on request at iteration 0"


def test_child_has_own_session_and_log(job_dir: JobDir, capfd: pytest.CaptureFixture[str]) -> None:
    job_dir.config.write_text("{")
    child = spawn(job_dir, 1)
    assert os.getsid(child.identity.pid) == child.identity.pid
    ended(child)
    assert capfd.readouterr() == ("", "")
    assert job_dir.log.read_text().startswith("=== attempt 1 ===\n")
    assert {path.stat().st_mode & 0o077 for path in (job_dir.log, job_dir.events, job_dir.lock)} == {0}


def test_job_folder_does_not_shadow_packages(job_dir: JobDir) -> None:
    (job_dir.path / "jobs.py").write_text("raise SystemExit(3)")
    (job_dir.path / "workers").mkdir()
    job_dir.config.write_text("{")
    child = spawn(job_dir, 1)
    ended(child)
    assert child.exit_report().exit_code == 78


def test_stubborn_child_is_killed(stubborn: Child) -> None:
    stubborn.kill_after(GRACE_OVER)  # without a stop request
    assert stubborn.lives()
    stubborn.request_stop()
    stubborn.kill_after(3600)
    assert stubborn.lives()
    stubborn.kill_after(GRACE_OVER)
    ended(stubborn)
    report = stubborn.exit_report()
    assert (report.exit_code, report.signal, report.stop_asked, report.killed_by_lq) == (
        None,
        signal.SIGKILL,
        True,
        True,
    )
    assert classify(report).reason is Reason.KILLED


def test_kill_from_outside_is_reported(stubborn: Child) -> None:
    os.kill(stubborn.identity.pid, signal.SIGKILL)
    ended(stubborn)
    report = stubborn.exit_report()
    assert (report.signal, report.killed_by_lq) == (signal.SIGKILL, False)
    assert classify(report).reason is Reason.KILLED


def test_adopt_by_lock(job_dir: JobDir) -> None:
    lock = LockFile.take(job_dir.lock)
    lock.write(processes.identity(), attempt=2)
    child = adopt(job_dir, 2, None)
    assert child is not None
    assert child.lives()
    assert child.identity == processes.identity()
    assert adopt(job_dir, 1, None) is None  # another attempt
    lock.release()
    assert adopt(job_dir, 2, None) is None


def test_adopt_by_identity_before_lock(stubborn: Child, job_dir: JobDir) -> None:
    child = adopt(job_dir, 1, stubborn.identity)
    assert child is not None
    assert child.identity == stubborn.identity
    os.kill(stubborn.identity.pid, signal.SIGKILL)
    until(lambda: not child.lives(), "the adopted child to end")
    assert adopt(job_dir, 1, stubborn.identity) is None
    report = child.exit_report()
    assert (report.exit_code, report.signal) == (None, None)  # only a parent can read these
    assert classify(report).reason is Reason.LOST


def test_old_name_in_lock_is_ignored(job_dir: JobDir) -> None:
    lock = LockFile.take(job_dir.lock)
    lock.write(ProcessIdentity(pid=2**22 - 1, create_time=1.0, boot_id=boot_id()), attempt=1)
    lock.release()
    assert supervisor.lock_holder(job_dir) is None
    assert adopt(job_dir, 1, None) is None


def test_second_child_exits_by_itself(job_dir: JobDir) -> None:
    lock = LockFile.take(job_dir.lock)
    lock.write(processes.identity(), attempt=1)
    second = spawn(job_dir, 2)
    ended(second)
    report = second.exit_report()
    assert (report.exit_code, report.ended) == (75, None)
    assert "another trainer works on" in report.stderr_tail
    lock.release()


def test_child_of_old_attempt_exits(job_dir: JobDir) -> None:
    lock = LockFile.take(job_dir.lock)
    lock.write(processes.identity(), attempt=3)
    lock.release()
    late = spawn(job_dir, 3)
    ended(late)
    report = late.exit_report()
    assert (report.exit_code, report.ended) == (75, None)
    assert report.stderr_tail.startswith("attempt 3 of ")
    assert not job_dir.events.exists()


def test_ended_event_of_exited_child(job_dir: JobDir) -> None:
    with EventLog(job_dir.events, 4) as log:
        log.append(EndedEvent(outcome=Outcome.DONE, reason=Reason.COMPLETED, iteration=9))
    who = ProcessIdentity(pid=2**22 - 1, create_time=1.0, boot_id=boot_id())
    report = exited(job_dir, 4, who).exit_report()
    assert classify(report).outcome is Outcome.DONE
    assert classify(exited(job_dir, 5, who).exit_report()).reason is Reason.LOST
    rebooted = dataclasses.replace(who, boot_id="the boot before")
    assert classify(exited(job_dir, 5, rebooted).exit_report()).reason is Reason.HOST_REBOOTED
    assert classify(exited(job_dir, 5, None).exit_report()).reason is Reason.LOST


def test_log_tail_of_one_attempt(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    assert log_tail(path, 1) == ""
    path.write_text("=== attempt 1 ===\nfirst\n=== attempt 2 ===\nsecond\nlast\n=== attempt 11 ===\n")
    assert log_tail(path, 2).startswith("second\nlast")
    assert log_tail(path, 11) == ""


def test_log_tail_of_long_log(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    lines = [f"line {number} {'x' * 50}" for number in range(20_000)]
    path.write_text("=== attempt 1 ===\n" + "\n".join(lines) + "\n")
    assert log_tail(path, 1).splitlines() == lines[-supervisor.TAIL_LINES :]


def test_log_tail_of_binary_log(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_bytes(b"=== attempt 1 ===\n\xff\xfe boom\n")
    assert log_tail(path, 1).endswith("boom")
