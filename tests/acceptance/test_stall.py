"""A stalled trainer is stopped and resumed; a slow one is not."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from jobs.model.events import Kind
from orchestrator.demo.tiny_model import build_data
from tests.acceptance.undisturbed import Undisturbed
from tests.harness import Lq, Workshop, lives, result, until

pytestmark = pytest.mark.timeout(240, func_only=True)

IMPATIENT = {"stall": {"first_iteration": "60s", "least": "3s"}}
"""The first iteration may compile; after it, a silence of 3 s is a stall."""


@pytest.mark.slow
def test_stalled_trainer_is_resumed(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    # SIGSTOP may arrive in any phase
    every_phase = {"stall": IMPATIENT["stall"] | {"save": "3s", "validation": "6s"}}
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", lq=every_phase))
    training.trained(50)
    trainer = training.trainer()
    os.kill(trainer, signal.SIGSTOP)
    until(lambda: not lives(trainer), "the stalled trainer to be killed")
    training.wait()
    assert result(training) == undisturbed.result
    facts = training.facts()
    first, second = facts["attempts"][:2]
    assert (first["outcome"], first["reason"]) == ("crashed", "stalled")
    assert second["quality"] == "exact"
    incident = facts["incidents"][0]
    assert (incident["code"], incident["evidence"]["reason"]) == ("stalled", "stalled")


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.usefixtures("undisturbed")  # compiles the kernels
def test_slow_validation_is_no_stall(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    data = tmp_path / "data"
    build_data(data, train=50, valid=3000, test=0)
    file = workshop.job_file(tmp_path / "job.yaml", data=str(data), iters=40, steps_per_eval=20, lq=IMPATIENT)
    training = lq.submit(file)
    training.wait(seconds=220)
    slowest = max(event.data["seconds"] for event in training.events(Kind.VALIDATION))
    if slowest < 4:
        pytest.skip(f"this machine validates 3000 rows in {slowest:.1f} s, which is not slow")
    facts = training.facts()
    assert len(facts["attempts"]) == 1
    assert facts["incidents"] == []
