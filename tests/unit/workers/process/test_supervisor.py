"""The keeper of one child, with real children."""

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
from jobs.model.events import Kind
from jobs.model.job import ProcessIdentity
from jobs.model.job_dir import JobDir
from jobs.model.outcomes import Outcome, Reason
from jobs.model.spec import JobSpec
from jobs.policies.exits import classify
from tests.harness import until
from workers.events.log import EventLog, read
from workers.process import supervisor
from workers.process.lock import LockFile, holder
from workers.process.supervisor import Child, adopt, departed, log_tail, spawn
from workers.system import processes
from workers.system.sensors import boot_id

GRACE_OVER = -1.0

STUBBORN = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
signal.pause()
"""


@pytest.fixture
def job_dir(tmp_path: Path) -> JobDir:
    """A job whose model is not there: it loads for a second or two, and then refuses."""
    folder = JobDir(tmp_path / "1-job")
    folder.path.mkdir()
    spec = JobSpec(model=str(tmp_path / "no-model"), data=str(tmp_path / "no-data"))
    folder.config.write_text(dump_job(spec))
    folder.run_plan.write_text(json.dumps(run_plan.to_json(run_plan.RunPlan.requested(spec))))
    return folder


@pytest.fixture
def stubborn(job_dir: JobDir) -> Iterator[Child]:
    """A child that ignores TERM."""
    popen = subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, start_new_session=True)
    with popen:
        assert popen.stdout is not None
        assert popen.stdout.readline() == b"up\n"
        yield Child(processes.identity(popen.pid), job_dir, 1, popen=popen)
        popen.kill()


def ended(child: Child) -> None:
    until(lambda: not child.lives(), "the child to end")


def test_a_child_that_cannot_read_its_configuration_says_so_and_refuses(job_dir: JobDir) -> None:
    job_dir.config.write_text("model: [not, a, name]\n")
    child = spawn(job_dir, 1)
    assert not child.adopted
    assert child.identity.boot_id == boot_id()
    ended(child)
    found = child.exit_report()
    assert (found.exit_code, found.signal, found.same_boot, found.stop_asked) == (78, None, True, False)
    assert found.ended is not None
    assert (found.ended["outcome"], found.ended["reason"]) == ("refused", "config_invalid")
    assert str(found.ended["detail"]).startswith(f"{job_dir.config}:1: model: ")
    ending = classify(found)
    assert (ending.outcome, ending.reason) == (Outcome.REFUSED, Reason.CONFIG_INVALID)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("{", "run_plan.json cannot be read"),
        ('{"version": 2, "stages": []}', "run_plan.json has version 2"),
    ],
)
def test_a_child_that_cannot_read_its_run_plan_refuses(job_dir: JobDir, spoil: str, says: str) -> None:
    job_dir.run_plan.write_text(spoil)
    child = spawn(job_dir, 1)
    ended(child)
    ending = classify(child.exit_report())
    assert (ending.outcome, ending.reason) == (Outcome.REFUSED, Reason.CONFIG_INVALID)
    assert says in ending.detail


def test_a_child_whose_model_is_gone_refuses_and_its_lock_is_free(job_dir: JobDir) -> None:
    child = spawn(job_dir, 1)
    content = until(lambda: holder(job_dir.lock), "the child to take its lock")
    ended(child)
    ending = classify(child.exit_report())
    assert (ending.outcome, ending.reason) == (Outcome.REFUSED, Reason.MODEL_MISSING)
    assert "no-model" in ending.detail
    assert holder(job_dir.lock) is None
    assert content.get("pid", child.identity.pid) == child.identity.pid
    assert [event.kind for event in read(job_dir.events, 0).events][:2] == [Kind.STARTED, Kind.PHASE]


def test_a_stop_while_it_loads_is_obeyed_at_once(job_dir: JobDir) -> None:
    child = spawn(job_dir, 1)
    until(lambda: job_dir.events.exists(), "the child to give a sign")
    child.ask_to_stop()
    first = child.stop_asked_at
    child.ask_to_stop()
    assert child.stop_asked_at == first
    ended(child)
    found = child.exit_report()
    assert (found.exit_code, found.stop_asked, found.killed_by_lq) == (75, True, False)
    ending = classify(found)
    assert (ending.outcome, ending.reason) == (Outcome.STOPPED, Reason.STOPPED_BY_USER)
    assert ending.detail == "stopped on request at iteration 0"


def test_a_child_belongs_to_no_terminal_and_writes_to_its_log_only(
    job_dir: JobDir, capfd: pytest.CaptureFixture[str]
) -> None:
    job_dir.config.write_text("{")
    child = spawn(job_dir, 1)
    assert os.getsid(child.identity.pid) == child.identity.pid
    ended(child)
    assert capfd.readouterr() == ("", "")
    assert job_dir.log.read_text().startswith("=== attempt 1 ===\n")
    assert {path.stat().st_mode & 0o077 for path in (job_dir.log, job_dir.events, job_dir.lock)} == {0}


def test_packages_of_the_same_name_in_the_job_folder_do_not_get_in_the_way(job_dir: JobDir) -> None:
    (job_dir.path / "jobs.py").write_text("raise SystemExit(3)")
    (job_dir.path / "workers").mkdir()
    job_dir.config.write_text("{")
    child = spawn(job_dir, 1)
    ended(child)
    assert child.exit_report().exit_code == 78


def test_a_child_that_does_not_stop_is_killed_after_the_grace(stubborn: Child) -> None:
    stubborn.kill_after(GRACE_OVER)  # nobody has asked it to stop
    assert stubborn.lives()
    stubborn.ask_to_stop()
    stubborn.kill_after(3600)
    assert stubborn.lives()
    stubborn.kill_after(GRACE_OVER)
    ended(stubborn)
    found = stubborn.exit_report()
    assert (found.exit_code, found.signal, found.stop_asked, found.killed_by_lq) == (None, signal.SIGKILL, True, True)
    assert classify(found).detail == "ended by SIGKILL, sent by lq"


def test_a_kill_from_elsewhere_is_not_taken_for_ours(stubborn: Child) -> None:
    os.kill(stubborn.identity.pid, signal.SIGKILL)
    ended(stubborn)
    found = stubborn.exit_report()
    assert (found.signal, found.killed_by_lq) == (signal.SIGKILL, False)
    assert classify(found).reason is Reason.KILLED


def test_a_living_child_is_adopted_by_its_lock(job_dir: JobDir) -> None:
    lock = LockFile.take(job_dir.lock)
    lock.write(processes.identity(), attempt=2)
    child = adopt(job_dir, 2, None)
    assert child is not None
    assert child.adopted
    assert child.lives()
    assert child.identity == processes.identity()
    assert adopt(job_dir, 1, None) is None  # that one is another attempt's
    lock.release()
    assert adopt(job_dir, 2, None) is None


def test_a_child_the_store_knows_is_adopted_before_it_has_its_lock(stubborn: Child, job_dir: JobDir) -> None:
    child = adopt(job_dir, 1, stubborn.identity)
    assert child is not None
    assert child.identity == stubborn.identity
    os.kill(stubborn.identity.pid, signal.SIGKILL)
    until(lambda: not child.lives(), "the adopted child to end")
    assert adopt(job_dir, 1, stubborn.identity) is None
    found = child.exit_report()
    assert (found.exit_code, found.signal) == (None, None)  # only a parent learns these
    assert classify(found).reason is Reason.LOST


def test_a_lock_with_an_old_name_in_it_misleads_nobody(job_dir: JobDir) -> None:
    lock = LockFile.take(job_dir.lock)
    lock.write(ProcessIdentity(pid=2**22 - 1, create_time=1.0, boot_id=boot_id()), attempt=1)
    lock.release()
    assert supervisor.lock_holder(job_dir) is None
    assert adopt(job_dir, 1, None) is None


def test_a_second_child_for_the_same_job_goes_by_itself(job_dir: JobDir) -> None:
    lock = LockFile.take(job_dir.lock)
    lock.write(processes.identity(), attempt=1)
    second = spawn(job_dir, 2)
    ended(second)
    found = second.exit_report()
    assert (found.exit_code, found.ended) == (75, None)
    assert "another trainer works on" in found.stderr_tail
    lock.release()


def test_a_child_that_comes_too_late_goes_by_itself(job_dir: JobDir) -> None:
    lock = LockFile.take(job_dir.lock)
    lock.write(processes.identity(), attempt=3)
    lock.release()
    late = spawn(job_dir, 3)
    ended(late)
    found = late.exit_report()
    assert (found.exit_code, found.ended) == (75, None)
    assert found.stderr_tail.startswith("attempt 3 of ")
    assert not job_dir.events.exists()


def test_of_a_child_that_is_gone_its_last_words_remain(job_dir: JobDir) -> None:
    with EventLog(job_dir.events, 4) as log:
        log.append(Kind.ENDED, outcome="done", reason="completed", iteration=9, detail="trained to its last iteration")
    who = ProcessIdentity(pid=2**22 - 1, create_time=1.0, boot_id=boot_id())
    found = departed(job_dir, 4, who).exit_report()
    assert classify(found).outcome is Outcome.DONE
    assert classify(departed(job_dir, 5, who).exit_report()).reason is Reason.LOST
    rebooted = dataclasses.replace(who, boot_id="the boot before")
    assert classify(departed(job_dir, 5, rebooted).exit_report()).reason is Reason.HOST_REBOOTED
    assert classify(departed(job_dir, 5, None).exit_report()).reason is Reason.LOST


def test_the_tail_of_the_log_is_that_attempts_own(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    assert log_tail(path, 1) == ""
    path.write_text("=== attempt 1 ===\nfirst\n=== attempt 2 ===\nsecond\nlast\n=== attempt 11 ===\n")
    assert log_tail(path, 2).startswith("second\nlast")
    assert log_tail(path, 11) == ""


def test_the_tail_of_a_long_log_is_its_end(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    lines = [f"line {number} {'x' * 50}" for number in range(20_000)]
    path.write_text("=== attempt 1 ===\n" + "\n".join(lines) + "\n")
    assert log_tail(path, 1).splitlines() == lines[-supervisor.TAIL_LINES :]


def test_a_log_that_is_no_text_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_bytes(b"=== attempt 1 ===\n\xff\xfe boom\n")
    assert log_tail(path, 1).endswith("boom")
