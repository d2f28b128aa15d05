"""The worker goes, or is killed; the training does not care, or goes on where it was."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from jobs.model.events import Kind
from tests.acceptance.undisturbed import Undisturbed
from tests.harness import Lq, Workshop, held, kill, lives, result, until

pytestmark = pytest.mark.timeout(240, func_only=True)


def test_a_trainer_outlives_its_worker_killed_or_sent_home_and_the_next_one_adopts_it(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml"))
    training.trained(10)
    trainer = training.trainer()
    with held(trainer):  # so that it is not done before the next worker comes
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
def test_with_worker_and_trainer_killed_the_next_worker_resumes(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml"))
    training.trained(30)
    kill(lq.worker())
    kill(training.trainer())
    seen = lq.look("status")
    assert seen["worker"] == {"alive": False, "pid": None, "started_at": None}
    assert [(job["status"], job["pid"]) for job in seen["jobs"]] == [("running", None)]
    lq.start_worker()
    training.wait()
    assert result(training) == undisturbed.result
    first, second = training.facts()["attempts"]
    assert (first["outcome"], first["reason"]) == ("crashed", "lost")
    assert second["quality"] == "exact"
    (test,) = training.events(Kind.SELF_TEST)
    assert test.data["equal"] is True


@pytest.mark.slow
def test_a_worker_sent_home_pauses_its_job_and_the_next_one_goes_on_with_it(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path
) -> None:
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
    assert first["last_iteration"] == second["first_iteration"], "what was trained is not trained again"
    assert facts["incidents"] == []


@pytest.mark.slow
def test_a_training_that_ends_while_no_worker_looks_is_found_finished(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml"))
    training.until(Kind.STARTED)
    kill(lq.worker())
    training.until(Kind.ENDED)
    until(lambda: not lives(training.trainer()), "the trainer to be gone")
    lq.start_worker()
    training.wait()
    assert result(training) == undisturbed.result
    (attempt,) = training.facts()["attempts"]
    assert (attempt["outcome"], attempt["reason"]) == ("done", "completed")


@pytest.mark.slow
@pytest.mark.usefixtures("undisturbed")  # so that the kernels are there
def test_a_closed_terminal_disturbs_neither_worker_nor_trainer(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", iters=20))
    worker = lq.worker()
    os.kill(worker, signal.SIGHUP)
    training.until(Kind.STARTED)
    os.kill(training.trainer(), signal.SIGHUP)
    training.wait()
    assert training.job()["attempts"] == 1
    assert lq.worker() == worker
