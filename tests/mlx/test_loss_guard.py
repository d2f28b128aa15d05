"""What the trainer itself does for the loss guard: updates that are not applied, stages that go back, rows left out."""

from __future__ import annotations

import dataclasses
import json
import math
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load

from jobs.model import run_plan
from jobs.model.events import Kind
from jobs.model.run_plan import RunPlan
from tests.mlx import rows
from tests.mlx.conftest import Build
from tests.mlx.training import FIRST_EVER_S, Training
from tests.poison import spoil, with_a_hole

pytestmark = pytest.mark.timeout(FIRST_EVER_S)

HOLE = 4
"""The training row with a token whose embedding is not a number."""


@pytest.fixture(scope="session")
def holed(tmp_path_factory: pytest.TempPathFactory, model: Path, data: Path) -> dict[str, Any]:
    """A model that cannot take one row of its data."""
    folder = tmp_path_factory.mktemp("holed")
    with_a_hole(model, folder / "model")
    spoiled = folder / "data"
    spoiled.mkdir()
    for file in data.iterdir():
        (spoiled / file.name).write_bytes(file.read_bytes())
    spoil(spoiled / "train.jsonl", [HOLE], " ~")
    return {"model": str(folder / "model"), "data": str(spoiled), "iters": 24, "steps_per_report": 1, "save_every": 1}


def with_stage(training: Training, **changes: Any) -> Training:
    """Append a stage to a job's run plan."""
    before = training.run_plan
    stage = dataclasses.replace(before.stages[-1], because="a test", **changes)
    training.job_dir.run_plan.write_text(json.dumps(run_plan.to_json(RunPlan(stages=(*before.stages, stage)))))
    return training


def lost(training: Training) -> list[int]:
    """The iterations whose update was not applied."""
    return [one for event in training.events(Kind.PROGRESS) for one in event.data["skipped"]]


def weights_at(training: Training, iteration: int) -> bytes:
    return (training.job_dir.checkpoints / f"step-{iteration:07d}" / "adapters.safetensors").read_bytes()


def moments_at(training: Training, iteration: int) -> bytes:
    return (training.job_dir.checkpoints / f"step-{iteration:07d}" / "optimizer.safetensors").read_bytes()


def test_an_update_that_is_not_finite_leaves_weights_moments_and_step_as_they_were(
    build: Build, holed: dict[str, Any]
) -> None:
    training = build(**holed).finish()
    told = [event.data for event in training.events(Kind.WARNING) if event.data["code"] == "not_applied"]
    iterations = [one["data"]["iteration"] for one in told]
    assert iterations == lost(training)
    assert iterations, "the row came at least once"
    for iteration in iterations:
        assert weights_at(training, iteration) == weights_at(training, iteration - 1)
        assert moments_at(training, iteration) == moments_at(training, iteration - 1)
    others = [one for one in range(2, 25) if one not in iterations]
    assert all(weights_at(training, one) != weights_at(training, one - 1) for one in others)
    assert all([row["line"] for row in one["data"]["rows"]] == [f"train.jsonl:{HOLE + 1}"] for one in told)
    assert training.newest.state().updates == 24 - len(iterations)


def test_accumulated_gradients_are_dropped_whole(build: Build, holed: dict[str, Any]) -> None:
    training = build(**holed, grad_accumulation_steps=4).finish()
    iterations = lost(training)
    assert iterations
    assert len(iterations) % 4 == 0
    assert all(iterations[place] % 4 == 1 for place in range(0, len(iterations), 4))


def test_a_run_with_lost_updates_resumes_exactly(build: Build, holed: dict[str, Any]) -> None:
    whole = build("whole", **holed).finish()
    stopped = build("stopped", **holed).stopped_half_way().finish(2)
    assert stopped.weights() == whole.weights()
    assert stopped.newest.state().updates == whole.newest.state().updates


@pytest.mark.slow
def test_gradients_are_clipped_and_their_norm_is_told_as_it_was(build: Build) -> None:
    def first_step(name: str, **lq: float) -> tuple[float, float]:
        """Return the gradient norm, and how far the weights went, of one step of plain descent."""
        training = build(name, iters=2, save_every=1, steps_per_report=1, optimizer="sgd", learning_rate=1.0, lq=lq)
        training.finish()
        norm = training.events(Kind.PROGRESS)[0].data["grad_norm"]
        moved = [load(weights_at(training, iteration)) for iteration in (1, 2)]
        return norm, math.sqrt(sum(float(((moved[1][k] - moved[0][k]) ** 2).sum()) for k in moved[0]))

    norm, moved = first_step("free")
    clipped_norm, clipped = first_step("clipped", grad_clip=0.01)
    assert clipped_norm == norm
    assert moved > 0.05
    assert clipped == pytest.approx(0.01, rel=1e-2)
    assert first_step("loose", grad_clip=1e6) == (norm, moved)


def test_a_stage_scales_the_learning_rate_and_climbs_back_to_it(build: Build) -> None:
    training = with_stage(
        build(iters=12, steps_per_report=1),
        first_example=12,
        learning_rate_factor=0.5,
        warmup_updates=4,
        first_update=6,
    ).finish()
    rates = {
        event.data["iteration"]: event.data["learning_rate"]
        for event in training.events(Kind.PROGRESS)
        if event.data["losses"]
    }
    expected = [1.25e-4, 2.5e-4, 3.75e-4, 5e-4, 5e-4, 5e-4]
    told = {7 + place: rate for place, rate in enumerate(expected)} | {6: 1e-3}
    assert {iteration: rates[iteration] for iteration in told if iteration in rates} == {
        iteration: pytest.approx(rate) for iteration, rate in told.items() if iteration in rates
    }
    assert 12 in rates


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.parametrize("reset", [False, True])
def test_a_stage_that_goes_back_is_exact_across_interruptions(build: Build, reset: bool) -> None:
    """Salt, rows left out, rate, warm-up, clip and moments: all at once, killed in its midst."""
    changes: dict[str, Any] = {
        "first_example": 12 * 2,
        "salt": 3,
        "skipped": (14, 20),
        "learning_rate_factor": 0.5,
        "warmup_updates": 8,
        "first_update": 12,
        "grad_clip": 0.5,
        "reset_moments": reset,
        "rollback": 3,
        "first_flag": 18,
    }
    settings: dict[str, Any] = {"iters": 40, "save_every": 4, "steps_per_eval": 12, "optimizer": "adamw"}
    runs = {name: build(name, **settings) for name in ("whole", "killed")}
    for training in runs.values():
        with training.running(1) as child:
            training.await_checkpoint(child)
            while training.events(Kind.CHECKPOINT)[-1].data["iteration"] < 20:
                assert child.poll() is None
            child.kill()
        with_stage(training, **changes)
    whole = runs["whole"].finish(2)
    killed = runs["killed"]
    with killed.running(2) as child:
        while not any(e.data["iteration"] >= 24 for e in killed.events(Kind.CHECKPOINT, attempt=2)):
            assert child.poll() is None, killed.story()
        child.send_signal(signal.SIGKILL)
    killed.finish(3)
    assert whole.events(Kind.STARTED, attempt=2)[0].data["iteration"] == 12
    assert killed.weights() == whole.weights()
    assert killed.losses() == whole.losses()
    (autopsy,) = [e.data for e in whole.events(Kind.WARNING) if e.data["code"] == "autopsy"]
    assert autopsy["data"]["rows"]


def test_a_run_plan_that_ends_early_ends_there_and_measures_the_test_set(build: Build, tmp_path: Path) -> None:
    data = rows.write(tmp_path / "data", rows.chat, test=4)
    training = with_stage(build(data=str(data), iters=400, test=True), first_example=6 * 2, ends=True).finish()
    ended = training.said(Kind.ENDED)
    assert (ended["outcome"], ended["reason"], ended["iteration"]) == ("done", "early_stopped", 6)
    assert training.newest.iteration == 6
    assert training.events(Kind.TEST)
