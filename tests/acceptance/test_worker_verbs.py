"""One worker per home, which finds every queued job."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sqlite3
from pathlib import Path

import pytest

from tests.acceptance.undisturbed import Undisturbed
from tests.harness import Lq, Workshop, lives, result, until

pytestmark = pytest.mark.timeout(120, func_only=True)


@pytest.mark.usefixtures("undisturbed")  # compiles the kernels
def test_lost_wakeup_is_harmless(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    lq.settings(autostart=False)
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", iters=8))
    lq("worker", "status", expect=4)
    with contextlib.closing(sqlite3.connect(lq.home / "queue.db")) as queue, queue:
        assert queue.execute("DELETE FROM task").rowcount > 0
    lq.start_worker()
    training.wait()
    assert training.job()["attempts"] == 1


def test_second_worker_is_refused(lq: Lq) -> None:
    first = lq.start_worker()
    refused = lq("worker", expect=5)
    assert refused.out == ""
    assert len(refused.err.splitlines()) == 1
    assert str(first) in refused.err
    assert str(first) in lq("worker", "--detach").out
    assert lq.worker() == first


@pytest.mark.slow
@pytest.mark.longest
def test_idle_worker_stops_without_jobs(lq: Lq) -> None:
    lq.start_worker()
    assert re.fullmatch(r"worker \d+ stopped\n", lq("worker", "stop").out)


def test_worker_exits_without_home(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    worker = lq.start_worker()
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", iters=100_000))
    training.trained(1)
    trainer = training.trainer()

    def deleted() -> bool:
        shutil.rmtree(lq.home, ignore_errors=True)  # the trainer still writes there
        return not lq.home.exists()

    until(deleted, "the home to be gone")
    until(lambda: not lives(trainer), "the trainer to be gone", seconds=60)
    until(lambda: not lives(worker), "the worker to be gone", seconds=60)


@pytest.mark.parametrize(
    ("words", "code"),
    [(("show", 7), 3), (("logs", 7), 3), (("cancel", 7), 3), (("retry", 7), 3), (("report", 7), 3), (("wait", 7), 102)],
)
def test_unknown_job_is_one_line(words: tuple[str, int], code: int, undisturbed: Undisturbed) -> None:
    answer = undisturbed.lq(*words, expect=code)
    assert answer.out == ""
    assert len(answer.err.splitlines()) == 1
    assert answer.err.startswith("lq: no job 7")


@pytest.mark.slow
def test_restart_resumes_exactly(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    assert "worker started" in lq("worker", "restart").out, "without a worker it starts one"
    first = lq.worker()
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml"))
    training.trained(20)
    trainer = training.trainer()
    os.kill(trainer, signal.SIGSTOP)  # it must not end earlier; a request wakes it
    lq("worker", "restart")
    assert not lives(first)
    assert not lives(trainer)
    assert str(lq.worker()) in lq("worker", "start").out, "it runs already"
    training.wait()
    assert result(training) == undisturbed.result
    assert [one["outcome"] for one in training.facts()["attempts"]] == ["stopped", "done"]
