"""One worker a home, and work is found however the bell was rung."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from tests.acceptance.undisturbed import Undisturbed
from tests.harness import Lq, Workshop, lives, until

pytestmark = pytest.mark.timeout(120, func_only=True)


@pytest.mark.usefixtures("undisturbed")  # so that the kernels are there
def test_a_job_whose_bell_was_lost_runs_when_a_worker_starts(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    lq.settings(autostart=False)
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", iters=8))
    lq("worker", "status", expect=4)
    with contextlib.closing(sqlite3.connect(lq.home / "queue.db")) as bells, bells:
        assert bells.execute("DELETE FROM task").rowcount > 0
    lq.start_worker()
    training.wait()
    assert training.job()["attempts"] == 1


def test_a_second_worker_is_refused_and_the_first_one_stays(lq: Lq) -> None:
    first = lq.start_worker()
    refused = lq("worker", expect=5)
    assert refused.out == ""
    assert len(refused.err.splitlines()) == 1
    assert str(first) in refused.err
    assert str(first) in lq("worker", "--detach").out
    assert lq.worker() == first


@pytest.mark.slow
@pytest.mark.longest
def test_a_worker_whose_home_was_deleted_goes(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    worker = lq.start_worker()
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", iters=100_000))
    training.trained(1)
    trainer = training.trainer()

    def deleted() -> bool:
        shutil.rmtree(lq.home, ignore_errors=True)  # the trainer writes there meanwhile
        return not lq.home.exists()

    until(deleted, "the home to be gone")
    until(lambda: not lives(trainer), "the trainer to be gone", seconds=60)
    until(lambda: not lives(worker), "the worker to be gone", seconds=60)


@pytest.mark.parametrize(
    ("words", "code"),
    [(("show", 7), 3), (("logs", 7), 3), (("cancel", 7), 3), (("retry", 7), 3), (("report", 7), 3), (("wait", 7), 102)],
)
def test_a_verb_about_a_job_that_does_not_exist_says_so(
    words: tuple[str, int], code: int, undisturbed: Undisturbed
) -> None:
    answer = undisturbed.lq(*words, expect=code)
    assert answer.out == ""
    assert len(answer.err.splitlines()) == 1
    assert answer.err.startswith("lq: no job 7")
