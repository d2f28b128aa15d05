"""A retry after a failure or a cancel leads to the same result."""

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
def test_retry_after_too_many_kills(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
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
    assert [attempt["quality"] for attempt in training.facts()["attempts"]] == ["fresh", None, "exact"]


@pytest.mark.slow
def test_retry_after_cancel(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml"))
    training.trained(30)
    trainer = training.trainer()
    os.kill(trainer, signal.SIGSTOP)  # so that it does not end before the cancel, which sends SIGCONT
    lq("cancel", training.id)
    training.wait(expect=103)
    assert not lives(trainer)
    job = training.job()
    assert (job["status"], job["reason"], job["pid"]) == ("cancelled", "stopped_by_user", None)
    lq("retry", training.id)
    training.wait()
    assert result(training) == undisturbed.result
    first, second = training.facts()["attempts"]
    assert first["last_iteration"] == second["first_iteration"], "no iteration is trained again"
    assert second["quality"] == "exact"
