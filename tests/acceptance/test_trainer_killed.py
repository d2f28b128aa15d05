"""A kill or stop of the trainer at any moment does not change the result of the run."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.model.events import Kind
from tests.acceptance.undisturbed import Undisturbed
from tests.harness import Lq, Training, Workshop, kill, kill_while, result

pytestmark = pytest.mark.timeout(240, func_only=True)


def starting(training: Training) -> int:
    """Return the pid of a trainer that is still importing."""
    return training.starting(1)


def loading(training: Training) -> int:
    """Return the pid of a trainer that loads the model."""
    training.until(Kind.PHASE, lambda event: event.data["phase"] == "load")
    return training.trainer()


def training_first(training: Training) -> int:
    """Return the pid of a trainer that trains without a checkpoint yet."""
    training.until(Kind.VALIDATION)
    return training.trainer()


def half_way(training: Training) -> int:
    """Return the pid of a trainer that has trained past a checkpoint."""
    training.trained(50)
    return training.trainer()


SLOW = [
    pytest.param(training_first, marks=pytest.mark.slow),
    *(pytest.param(when, marks=(pytest.mark.slow, pytest.mark.longest)) for when in (starting, loading)),
]
"""The quick run kills only a trainer that has trained half of its iterations."""


@pytest.mark.parametrize("when", [*SLOW, half_way])
def test_killed_trainer_resumes(
    when: Callable[[Training], int], lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml"))
    kill(when(training))
    training.wait()
    assert result(training) == undisturbed.result
    facts = training.facts()
    first, second = facts["attempts"]
    assert (first["outcome"], first["reason"], first["signal"]) == ("crashed", "killed", signal.SIGKILL)
    assert second["quality"] == ("exact" if when is half_way else "fresh")
    assert [incident["code"] for incident in facts["incidents"]] == ["killed"]
    assert all(test.data["equal"] is True for test in training.events(Kind.SELF_TEST))
    assert len(training.events(Kind.SELF_TEST)) == (when is half_way)
    kept = list((lq.home / "cache").iterdir())
    modes = sorted(path.stat().st_mode & 0o777 for path in kept)
    assert modes == [0o600] * 2 + [0o700]  # tokenized train and valid data, and the folder of the checked rows


@pytest.mark.slow
def test_kill_during_checkpoint_write(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", save_every=1))
    folder = training.folder.checkpoints
    training.until(Kind.CHECKPOINT, lambda event: event.data["iteration"] >= 20)
    kill_while(training.trainer(), lambda: any(folder.glob(".step-*.partial")), "a checkpoint being written")
    training.wait()
    assert result(training) == undisturbed.result
    complete = [event.data["iteration"] for event in training.events(Kind.CHECKPOINT) if event.attempt == 1][-1]
    assert training.facts()["attempts"][1]["first_iteration"] == complete
    assert not list(folder.glob(".step-*"))
    (test,) = training.events(Kind.SELF_TEST)
    assert test.data["equal"] is True


@pytest.mark.slow
def test_term_keeps_best_adapter(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    # The trainer stops only at an iteration with a validation, so the stop always postpones one.
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", steps_per_eval=4, lq={"keep": {"last": 99}}))
    training.trained(20)
    os.kill(training.trainer(), signal.SIGTERM)
    training.wait()
    outcome = result(training)
    assert outcome == dataclasses.replace(undisturbed.result, best=outcome.best, validations=outcome.validations)
    assert [attempt["outcome"] for attempt in training.facts()["attempts"]] == ["stopped", "done"]
    assert [iteration for iteration, _ in outcome.validations] == list(range(0, 121, 4))
    candidates = {path: json.loads((path / "state.json").read_text()) for path in training.folder.checkpoints.iterdir()}
    known = {state["iteration"]: state["validation"]["loss"] for state in candidates.values()}
    assert known == {iteration: loss for iteration, loss in outcome.validations if iteration > 0}


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.timeout(600, func_only=True)
def test_ten_kills_keep_result(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", save_every=1, lq={"retry": {"max_restarts": 0}}))
    for attempt in range(1, 11):
        kill_a_trainer(training, attempt, while_saving=attempt % 2 == 1)
        training.wait(expect=100)
        lq("retry", training.id)
    training.wait()
    assert result(training) == undisturbed.result
    attempts = training.facts()["attempts"]
    assert len(attempts) == 11
    assert {attempt["quality"] for attempt in attempts[2:]} == {"exact"}
    assert all(test.data["equal"] is True for test in training.events(Kind.SELF_TEST))


def kill_a_trainer(training: Training, attempt: int, *, while_saving: bool) -> None:
    """Kill the trainer of an attempt while it writes a checkpoint, or some time after a new one."""
    started = training.until(Kind.STARTED, lambda event: event.attempt == attempt)
    if while_saving:
        folder = training.folder.checkpoints
        kill_while(training.trainer(), lambda: any(folder.glob(".step-*.partial")), "a checkpoint being written")
    else:
        training.until(Kind.CHECKPOINT, lambda event: event.data["iteration"] > started.data["iteration"])
        kill(training.trainer())
