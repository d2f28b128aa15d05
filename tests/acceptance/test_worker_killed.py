"""A kill or stop of the worker does not change the result of a run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from jobs.model.events import Kind
from tests.acceptance.undisturbed import Undisturbed
from tests.harness import Lq, Workshop, held, kill, lives, result, until

pytestmark = pytest.mark.timeout(240, func_only=True)


def test_next_worker_adopts_trainer(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml"))
    training.trained(10)
    trainer = training.trainer()
    with held(trainer):  # so that it does not end before the next worker starts
        kill(lq.worker())
        assert lives(trainer)
        lq.start_worker()
    training.trained(20)
    with held(trainer):
        lq("worker", "stop", "--leave-running")
        assert lives(trainer)
        lq.start_worker()
        assert training.job()["pid"] == trainer
    training.wait()
    assert result(training) == undisturbed.result
    (attempt,) = training.facts()["attempts"]
    assert (attempt["child"]["pid"], attempt["outcome"]) == (trainer, "done")
    assert [event.data["pid"] for event in training.events(Kind.STARTED)] == [trainer]


@pytest.mark.slow
def test_worker_and_trainer_killed(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml"))
    training.trained(30)
    kill(lq.worker())
    kill(training.trainer())
    status = lq.look("status")
    assert status["worker"] == {"alive": False, "pid": None, "started_at": None}
    assert [(job["status"], job["pid"]) for job in status["jobs"]] == [("running", None)]
    lq.start_worker()
    training.wait()
    assert result(training) == undisturbed.result
    first, second = training.facts()["attempts"]
    assert (first["outcome"], first["reason"]) == ("crashed", "lost")
    assert second["quality"] == "exact"
    (test,) = training.events(Kind.SELF_TEST)
    assert test.data["equal"] is True


@pytest.mark.slow
def test_stopped_worker_pauses_its_job(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml"))
    training.trained(30)
    worker, trainer = lq.worker(), training.trainer()
    lq("worker", "stop")
    assert not lives(worker)
    assert not lives(trainer)
    job = training.job()
    assert (job["status"], job["reason"], job["pid"]) == ("paused", "stopped_by_user", None)
    lq.start_worker()
    training.wait()
    assert result(training) == undisturbed.result
    facts = training.facts()
    first, second = facts["attempts"]
    assert (first["outcome"], second["quality"]) == ("stopped", "exact")
    assert first["last_iteration"] == second["first_iteration"], "no iteration is trained again"
    assert facts["incidents"] == []


@pytest.mark.slow
def test_training_ends_without_worker(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml"))
    training.until(Kind.STARTED)
    kill(lq.worker())
    training.until(Kind.ENDED)
    until(lambda: not lives(training.trainer()), "the trainer to exit")
    lq.start_worker()
    training.wait()
    assert result(training) == undisturbed.result
    (attempt,) = training.facts()["attempts"]
    assert (attempt["outcome"], attempt["reason"]) == ("done", "completed")


@pytest.mark.slow
@pytest.mark.usefixtures("undisturbed")  # compiles the kernels
def test_hup_does_not_stop_anything(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", iters=20))
    worker = lq.worker()
    os.kill(worker, signal.SIGHUP)
    training.until(Kind.STARTED)
    os.kill(training.trainer(), signal.SIGHUP)
    training.wait()
    assert training.job()["attempts"] == 1
    assert lq.worker() == worker
