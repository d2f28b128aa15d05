"""A run plan of several stages resumes exactly, and checkpoints off the plan are not used."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from jobs.model import run_plan
from jobs.model.events import Kind
from jobs.model.run_plan import RunPlan
from tests.harness import until
from tests.mlx.training import FIRST_EVER_S, Training

pytestmark = [pytest.mark.timeout(FIRST_EVER_S), pytest.mark.slow]

BATCH, ACCUMULATION, SWITCH = 4, 3, 24
CHANGES: dict[str, Any] = {
    "iters": 60,
    "batch_size": BATCH,
    "grad_accumulation_steps": ACCUMULATION,
    "steps_per_report": 4,
    "steps_per_eval": 30,
    "save_every": 6,
}
CALM: dict[str, Any] = CHANGES | {"lora_parameters": {"rank": 4, "scale": 10.0, "dropout": 0.0}}
"""Without dropout, so that losses under different cuts can be compared."""


def with_stage(training: Training, **changes: Any) -> Training:
    """Append a stage to a job's run plan."""
    requested = training.run_plan
    stage = dataclasses.replace(requested.stages[-1], because="a test", **changes)
    training.job_dir.run_plan.write_text(json.dumps(run_plan.to_json(RunPlan(stages=(*requested.stages, stage)))))
    return training


def halved(training: Training, *, first_example: int = SWITCH * BATCH) -> Training:
    return with_stage(
        training,
        first_example=first_example,
        batch_size=BATCH // 2,
        grad_accumulation_steps=ACCUMULATION * 2,
        grad_checkpoint=True,
    )


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, basics: dict[str, Any]) -> Training:
    """One stage, no dropout, undisturbed."""
    return Training.laid_out(tmp_path_factory.mktemp("calm") / "job", basics | CALM).finish()


@pytest.fixture(scope="module")
def two_stages(tmp_path_factory: pytest.TempPathFactory, basics: dict[str, Any]) -> Training:
    """Two stages, with dropout, undisturbed."""
    return halved(Training.laid_out(tmp_path_factory.mktemp("two") / "job", basics | CHANGES)).finish()


def close(found: dict[int, float], expected: dict[int, float], *, within: float) -> bool:
    return found == {iteration: pytest.approx(loss, rel=within) for iteration, loss in expected.items()}


@pytest.mark.longest
@pytest.mark.parametrize("begins", [0, SWITCH])
def test_smaller_cuts_train_the_same_rows(begins: int, calm: Training, tmp_path: Path, basics: dict[str, Any]) -> None:
    training = halved(Training.laid_out(tmp_path / "job", basics | CALM), first_example=begins * BATCH).finish()
    mine, asked = training.losses(), calm.losses()
    assert list(mine) == list(range(1, 61)), "an iteration stays what the user asked for"
    if begins:
        before = [(mine[iteration], asked[iteration]) for iteration in range(1, begins + 1)]
        assert all(one == other for one, other in before), "nothing changes before the stage begins"
    # MLX-LM weighs micro-batches alike, however many tokens each has
    assert close(mine, asked, within=0.05)
    assert training.checkpoints == calm.checkpoints
    assert list(training.validations()) == list(calm.validations())
    state = training.newest.state()
    assert (state.stage, state.examples_seen) == (1, 60 * BATCH)
    assert state.self_test is not None
    assert state.self_test.batch_size == BATCH // 2
    tokens = [event.data["tokens"] for event in training.events(Kind.PROGRESS) if event.data["losses"]][-1]
    assert tokens == [event.data["tokens"] for event in calm.events(Kind.PROGRESS) if event.data["losses"]][-1]


@pytest.mark.longest
def test_gradient_checkpointing_alone_changes_next_to_nothing(
    calm: Training, tmp_path: Path, basics: dict[str, Any]
) -> None:
    training = with_stage(Training.laid_out(tmp_path / "job", basics | CALM), first_example=0, grad_checkpoint=True)
    training.finish()
    assert close(training.losses(), calm.losses(), within=1e-3)


@pytest.mark.longest
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_interrupted_in_its_second_stage_ends_like_the_undisturbed_one(
    number: signal.Signals, two_stages: Training, tmp_path: Path, basics: dict[str, Any]
) -> None:
    training = halved(Training.laid_out(tmp_path / "job", basics | CHANGES))
    with training.running(1) as child:
        until(
            lambda: [event for event in training.events(Kind.CHECKPOINT) if event.data["iteration"] > SWITCH],
            "a checkpoint of the second stage",
            seconds=FIRST_EVER_S,
        )
        child.send_signal(number)
        assert child.wait(FIRST_EVER_S) != 0, training.story()
    training.finish(2)
    begun = training.events(Kind.STARTED)[1].data
    assert begun["iteration"] > SWITCH
    assert (begun["stage"], begun["resume_quality"]) == (1, "exact")
    assert training.said(Kind.SELF_TEST)["equal"] is True
    assert training.weights() == two_stages.weights()
    assert training.losses() == two_stages.losses()
    assert training.validations() == two_stages.validations()


@pytest.mark.longest
def test_what_was_trained_past_the_place_where_a_new_stage_begins_is_left_behind(
    two_stages: Training, tmp_path: Path, basics: dict[str, Any]
) -> None:
    """As when memory runs out: the stage begins at the checkpoint that is gone on from, and newer ones do not count."""
    training = Training.laid_out(tmp_path / "job", basics | CHANGES).finish()
    assert training.checkpoints[-1] == 60
    halved(training).finish(2)
    begun = training.events(Kind.STARTED)[1].data
    assert (begun["resumed_from"], begun["iteration"], begun["stage"]) == (f"step-{SWITCH:07d}", SWITCH, 1)
    proof = training.said(Kind.SELF_TEST)
    assert (proof["equal"], proof["recorded_batch_size"], proof["batch_size"]) == (True, BATCH, BATCH // 2)
    assert training.weights() == two_stages.weights()


def test_three_stages_each_begin_where_they_were_decided(tmp_path: Path, basics: dict[str, Any]) -> None:
    """A run that is killed on each of three stages ends like one that is not killed."""
    whole = halved(Training.laid_out(tmp_path / "whole", basics | CHANGES))
    last: dict[str, Any] = {"first_example": 42 * BATCH, "batch_size": 1, "grad_accumulation_steps": 12}
    with_stage(whole, **last).finish()
    climbed = Training.laid_out(tmp_path / "climbed", basics | CHANGES)
    for attempt, more in enumerate([None, {}, last], start=1):
        if more is not None:
            halved(climbed) if not more else with_stage(climbed, **more)
        climbed.finish(attempt)
    assert [event.data["iteration"] for event in climbed.events(Kind.STARTED)] == [0, SWITCH, 42]
    assert [event.data["stage"] for event in climbed.events(Kind.STARTED)] == [0, 1, 2]
    assert climbed.weights() == whole.weights()


@pytest.mark.longest
def test_looking_whether_it_fits_changes_nothing(tmp_path: Path, basics: dict[str, Any]) -> None:
    """The probe draws dropout masks of its own; the random key is put back."""
    runs = []
    for probe in (True, False):
        changes = CHANGES | {"iters": 18, "lq": {"memory": {"probe": probe}}}
        runs.append(Training.laid_out(tmp_path / f"probe-{probe}", basics | changes).finish())
    probed, other = runs
    phases = [event.data["phase"] for event in probed.events(Kind.PHASE)]
    assert phases.index("tokenize") < phases.index("probe") < phases.index("train")
    assert "probe" not in [event.data["phase"] for event in other.events(Kind.PHASE)]
    assert probed.losses() == other.losses()
    assert probed.weights() == other.weights()
