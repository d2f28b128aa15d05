"""A job is given up, by lq or by its user; taken up again, it ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.acceptance.undisturbed import Undisturbed
from tests.harness import Lq, Workshop, kill, lives, result

pytestmark = pytest.mark.timeout(240, func_only=True)


@pytest.mark.slow
@pytest.mark.longest
def test_a_job_whose_trainer_is_always_killed_fails_and_a_retry_brings_it_to_the_end(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", lq={"retry": {"max_restarts": 1}}))
    training.trained(30)
    kill(training.trainer())
    kill(training.starting(2))
    training.wait(expect=100)
    job = training.job()
    assert (job["status"], job["reason"], job["attempts"], job["pid"]) == ("failed", "killed", 2, None)
    assert "max_restarts: 1" in training.facts()["job"]["detail"]
    assert f"job {training.id} queued" in lq("retry", training.id).out
    training.wait()
    assert result(training) == undisturbed.result
    assert [one["quality"] for one in training.facts()["attempts"]] == ["fresh", None, "exact"]


@pytest.mark.slow
def test_a_cancelled_job_stops_with_a_checkpoint_from_which_a_retry_goes_on(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml"))
    training.trained(30)
    trainer = training.trainer()
    os.kill(trainer, signal.SIGSTOP)  # so that it is not done before it is asked; who asks it wakes it
    lq("cancel", training.id)
    training.wait(expect=103)
    assert not lives(trainer)
    job = training.job()
    assert (job["status"], job["reason"], job["pid"]) == ("cancelled", "stopped_by_user", None)
    lq("retry", training.id)
    training.wait()
    assert result(training) == undisturbed.result
    first, second = training.facts()["attempts"]
    assert first["last_iteration"] == second["first_iteration"], "what was trained is not trained again"
    assert second["quality"] == "exact"
