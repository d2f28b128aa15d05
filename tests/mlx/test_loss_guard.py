"""What the trainer does for the loss guard: dropped updates, stages of a rollback, rows left out."""

from __future__ import annotations

import math
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load

from jobs.model.events import Kind
from tests.mlx import rows
from tests.mlx.conftest import Build
from tests.mlx.training import FIRST_EVER_S, Training
from tests.poison import spoil, with_a_hole

pytestmark = pytest.mark.timeout(FIRST_EVER_S)

HOLE = 4
"""The training row with a token whose embedding is not a number."""


@pytest.fixture(scope="session")
def holed(tmp_path_factory: pytest.TempPathFactory, model: Path, data: Path) -> dict[str, Any]:
    """A model that gives no finite loss for one row of its data."""
    folder = tmp_path_factory.mktemp("holed")
    with_a_hole(model, folder / "model")
    spoiled = folder / "data"
    spoiled.mkdir()
    for file in data.iterdir():
        (spoiled / file.name).write_bytes(file.read_bytes())
    spoil(spoiled / "train.jsonl", [HOLE], " ~")
    return {"model": str(folder / "model"), "data": str(spoiled), "iters": 24, "steps_per_report": 1, "save_every": 1}


def dropped(training: Training) -> list[int]:
    """Return the iterations whose update was dropped."""
    return [iteration for report in training.reports() for iteration in report["skipped"]]


def arrays_at(training: Training, iteration: int) -> tuple[bytes, bytes]:
    checkpoint = training.checkpoint_at(iteration)
    return checkpoint.adapters.read_bytes(), checkpoint.optimizer.read_bytes()


def test_dropped_update_changes_nothing(build: Build, holed: dict[str, Any]) -> None:
    training = build(**holed).finish()
    warnings = training.warnings("not_applied")
    iterations = [warning["data"]["iteration"] for warning in warnings]
    assert iterations == dropped(training)
    assert iterations, "the row was trained at least once"
    for iteration in iterations:
        assert arrays_at(training, iteration) == arrays_at(training, iteration - 1)
    for iteration in set(range(2, 25)) - set(iterations):
        assert arrays_at(training, iteration)[0] != arrays_at(training, iteration - 1)[0]
    lines = [[row["line"] for row in warning["data"]["rows"]] for warning in warnings]
    assert lines == [[f"train.jsonl:{HOLE + 1}"]] * len(warnings)
    assert training.newest.state().updates == 24 - len(iterations)


def test_accumulated_gradients_drop_whole(build: Build, holed: dict[str, Any]) -> None:
    iterations = dropped(build(**holed, grad_accumulation_steps=4).finish())
    assert iterations
    assert len(iterations) % 4 == 0
    assert all(iterations[start] % 4 == 1 for start in range(0, len(iterations), 4))


def test_resume_after_dropped_updates(build: Build, holed: dict[str, Any]) -> None:
    whole = build("whole", **holed).finish()
    stopped = build("stopped", **holed).stop_half_way().finish(2)
    assert stopped.weights() == whole.weights()
    assert stopped.newest.state().updates == whole.newest.state().updates


@pytest.mark.slow
def test_clip_limits_the_update(build: Build) -> None:
    def first_step(name: str, **lq: float) -> tuple[float, float]:
        """Return the gradient norm, and the length of the change, of one step of plain descent."""
        training = build(name, iters=2, save_every=1, steps_per_report=1, optimizer="sgd", learning_rate=1.0, lq=lq)
        training.finish()
        before, after = (load(arrays_at(training, iteration)[0]) for iteration in (1, 2))
        change = math.sqrt(sum(float(((after[name] - before[name]) ** 2).sum()) for name in before))
        return training.reports()[0]["grad_norm"], change

    norm, change = first_step("free")
    clipped_norm, clipped = first_step("clipped", grad_clip=0.01)
    assert clipped_norm == norm, "reported before clipping"
    assert change > 0.05
    assert clipped == pytest.approx(0.01, rel=1e-2)
    assert first_step("loose", grad_clip=1e6) == (norm, change)


def test_stage_warms_up_and_scales_rate(build: Build) -> None:
    training = build(iters=12, steps_per_report=1).append_stage(
        first_example=12, learning_rate_factor=0.5, warmup_updates=4, first_update=6
    )
    rates = {report["iteration"]: report["learning_rate"] for report in training.finish().reports()}
    expected = {6: 1e-3, 7: 1.25e-4, 8: 2.5e-4, 9: 3.75e-4, 10: 5e-4, 11: 5e-4, 12: 5e-4}
    assert 12 in rates  # a fast machine writes a line for several iterations
    assert {iteration: rate for iteration, rate in rates.items() if iteration >= 6} == {
        iteration: pytest.approx(rate) for iteration, rate in expected.items() if iteration in rates
    }


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.parametrize("reset", [False, True])
def test_rollback_survives_interruption(build: Build, reset: bool) -> None:
    """Salt, skipped rows, rate, warm-up, clip and moments together, in a stage that is killed."""
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
    whole, killed = (build(name, **settings) for name in ("whole", "killed"))
    for training in (whole, killed):
        training.signal_when(partial(training.checkpointed, 20), signal.SIGKILL)
        training.append_stage(**changes)
    whole.finish(2)
    killed.signal_when(lambda: killed.checkpointed(24, attempt=2), signal.SIGKILL, attempt=2)
    killed.finish(3)
    assert whole.only(Kind.STARTED, attempt=2)["iteration"] == 12
    assert killed.weights() == whole.weights()
    assert killed.losses() == whole.losses()
    [autopsy] = whole.warnings("autopsy")
    assert autopsy["data"]["rows"]


def test_early_end_measures_the_test_set(build: Build, tmp_path: Path) -> None:
    data = rows.write(tmp_path / "data", rows.chat, test=4)
    training = build(data=str(data), iters=400, test=True).append_stage(first_example=6 * 2, ends=True).finish()
    ended = training.only(Kind.ENDED)
    assert (ended["outcome"], ended["reason"], ended["iteration"]) == ("done", "early_stopped", 6)
    assert training.newest.iteration == 6
    assert training.events(Kind.TEST)


def test_norm_is_unknown_before_an_update(build: Build) -> None:
    """A zero there would look like a model without gradients to the loss guard."""
    half = 200  # iterations that take longer than the shortest time between two lines
    intervals = {"steps_per_eval": 2 * half, "save_every": 2 * half, "iters": 2 * half}
    training = build(grad_accumulation_steps=half, steps_per_report=1, **intervals).finish()
    norms = {report["iteration"]: report["grad_norm"] for report in training.reports()}
    assert {iteration: norm is None for iteration, norm in norms.items()} == {at: at < half for at in norms}
    assert min(norms) < half <= max(norms)
    assert all(norm is None or norm > 0 for norm in norms.values())
