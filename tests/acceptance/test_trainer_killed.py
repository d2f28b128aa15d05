"""The trainer dies or is stopped, at any moment; the run ends as if nothing had happened."""

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


def starts(training: Training) -> int:
    """Return the pid of a trainer that is still importing."""
    return training.starting(1)


def loads(training: Training) -> int:
    """Return the pid of a trainer that loads the model."""
    training.until(Kind.PHASE, lambda event: event.data["phase"] == "load")
    return training.trainer()


def trains(training: Training) -> int:
    """Return the pid of a trainer that trains without a checkpoint yet."""
    training.until(Kind.VALIDATION)
    return training.trainer()


def is_half_way(training: Training) -> int:
    """Return the pid of a trainer that has trained past a checkpoint."""
    training.trained(50)
    return training.trainer()


SLOW = [
    pytest.param(trains, marks=pytest.mark.slow),
    *(pytest.param(when, marks=(pytest.mark.slow, pytest.mark.longest)) for when in (starts, loads)),
]
"""The quick run kills a trainer where most of a night is lost."""


@pytest.mark.parametrize("when", [*SLOW, is_half_way])
def test_a_trainer_killed_when_it(
    when: Callable[[Training], int], lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml"))
    kill(when(training))
    training.wait()
    assert result(training) == undisturbed.result
    facts = training.facts()
    first, second = facts["attempts"]
    assert (first["outcome"], first["reason"], first["signal"]) == ("crashed", "killed", signal.SIGKILL)
    assert second["quality"] == ("exact" if when is is_half_way else "fresh")
    assert [incident["code"] for incident in facts["incidents"]] == ["killed"]
    assert all(test.data["equal"] is True for test in training.events(Kind.SELF_TEST))
    assert len(training.events(Kind.SELF_TEST)) == (when is is_half_way)
    kept = list((lq.home / "cache").iterdir())
    assert [path.stat().st_mode & 0o777 for path in kept] == [0o600] * 2  # what train and valid were tokenised to


@pytest.mark.slow
def test_a_trainer_killed_while_it_writes_a_checkpoint_goes_on_from_the_one_before(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", save_every=1))
    folder = training.folder.checkpoints
    training.until(Kind.CHECKPOINT, lambda event: event.data["iteration"] >= 20)
    kill_while(training.trainer(), lambda: any(folder.glob(".step-*.partial")), "a checkpoint being written")
    training.wait()
    assert result(training) == undisturbed.result
    whole = [event.data["iteration"] for event in training.events(Kind.CHECKPOINT) if event.attempt == 1][-1]
    assert training.facts()["attempts"][1]["first_iteration"] == whole
    assert not list(folder.glob(".step-*"))
    (test,) = training.events(Kind.SELF_TEST)
    assert test.data["equal"] is True


@pytest.mark.slow
def test_a_trainer_told_to_stop_by_someone_else_goes_on_and_the_best_adapter_is_the_same(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    # It may only stop where it would also validate, so the stop always puts a validation off.
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", steps_per_eval=4, lq={"keep": {"last": 99}}))
    training.trained(20)
    os.kill(training.trainer(), signal.SIGTERM)
    training.wait()
    found = result(training)
    assert found == dataclasses.replace(undisturbed.result, best=found.best, validations=found.validations)
    assert [one["outcome"] for one in training.facts()["attempts"]] == ["stopped", "done"]
    assert [iteration for iteration, _ in found.validations] == list(range(0, 121, 4))
    candidates = {one: json.loads((one / "state.json").read_text()) for one in training.folder.checkpoints.iterdir()}
    known = {state["iteration"]: state["validation"]["loss"] for state in candidates.values()}
    assert known == {iteration: loss for iteration, loss in found.validations if iteration > 0}


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.timeout(600, func_only=True)
def test_a_trainer_killed_time_and_again_still_ends_the_same(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path
) -> None:
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
    """Kill the trainer of an attempt in the midst of a checkpoint, or some time after one that is new."""
    started = training.until(Kind.STARTED, lambda event: event.attempt == attempt)
    if while_saving:
        folder = training.folder.checkpoints
        kill_while(training.trainer(), lambda: any(folder.glob(".step-*.partial")), "a checkpoint being written")
    else:
        training.until(Kind.CHECKPOINT, lambda event: event.data["iteration"] > started.data["iteration"])
        kill(training.trainer())
