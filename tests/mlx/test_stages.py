"""A run plan of several stages resumes exactly, and checkpoints that a stage left behind are not used."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from jobs.model.events import Kind
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
"""Without dropout, losses with different micro-batches can be compared."""


def halved(training: Training, *, start: int = SWITCH) -> Training:
    return training.append_stage(
        first_example=start * BATCH,
        batch_size=BATCH // 2,
        grad_accumulation_steps=ACCUMULATION * 2,
        grad_checkpoint=True,
    )


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, basics: dict[str, Any]) -> Training:
    """One stage, no dropout, uninterrupted."""
    return Training.create(tmp_path_factory.mktemp("calm") / "job", basics | CALM).finish()


@pytest.fixture(scope="module")
def two_stages(tmp_path_factory: pytest.TempPathFactory, basics: dict[str, Any]) -> Training:
    """Two stages, with dropout, uninterrupted."""
    return halved(Training.create(tmp_path_factory.mktemp("two") / "job", basics | CHANGES)).finish()


def close(losses: dict[int, float], expected: dict[int, float], *, within: float) -> bool:
    return losses == {iteration: pytest.approx(loss, rel=within) for iteration, loss in expected.items()}


@pytest.mark.longest
@pytest.mark.parametrize("start", [0, SWITCH])
def test_micro_batches_keep_the_rows(start: int, calm: Training, tmp_path: Path, basics: dict[str, Any]) -> None:
    training = halved(Training.create(tmp_path / "job", basics | CALM), start=start).finish()
    losses, expected = training.losses(), calm.losses()
    assert list(losses) == list(range(1, 61)), "an iteration is a batch of the job file"
    assert [losses[iteration] for iteration in range(1, start + 1)] == [
        expected[iteration] for iteration in range(1, start + 1)
    ]
    # MLX-LM weighs micro-batches equally, however many tokens each has
    assert close(losses, expected, within=0.05)
    assert training.checkpoints == calm.checkpoints
    assert list(training.validations()) == list(calm.validations())
    state = training.newest.state()
    assert (state.stage, state.examples_seen) == (1, 60 * BATCH)
    assert state.self_test is not None
    assert state.self_test.batch_size == BATCH // 2
    assert training.reports()[-1]["tokens"] == calm.reports()[-1]["tokens"]


@pytest.mark.longest
def test_checkpointing_keeps_the_losses(calm: Training, tmp_path: Path, basics: dict[str, Any]) -> None:
    training = Training.create(tmp_path / "job", basics | CALM).append_stage(first_example=0, grad_checkpoint=True)
    assert close(training.finish().losses(), calm.losses(), within=1e-3)


@pytest.mark.longest
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_second_stage_resumes_exactly(
    number: signal.Signals, two_stages: Training, tmp_path: Path, basics: dict[str, Any]
) -> None:
    training = halved(Training.create(tmp_path / "job", basics | CHANGES))
    assert training.signal_when(lambda: training.checkpointed(SWITCH + 1), number) != 0, training.log_tail()
    training.finish(2)
    started = training.only(Kind.STARTED, attempt=2)
    assert started["iteration"] > SWITCH
    assert (started["stage"], started["resume_quality"]) == (1, "exact")
    assert training.only(Kind.SELF_TEST)["equal"] is True
    assert training.weights() == two_stages.weights()
    assert training.losses() == two_stages.losses()
    assert training.validations() == two_stages.validations()


@pytest.mark.longest
def test_later_checkpoints_are_left_behind(two_stages: Training, tmp_path: Path, basics: dict[str, Any]) -> None:
    """When memory runs out, a stage starts at the checkpoint to resume from, and newer ones do not count."""
    training = Training.create(tmp_path / "job", basics | CHANGES).finish()
    assert training.checkpoints[-1] == 60
    halved(training).finish(2)
    started = training.only(Kind.STARTED, attempt=2)
    assert (started["resumed_from"], started["iteration"], started["stage"]) == (f"step-{SWITCH:07d}", SWITCH, 1)
    test = training.only(Kind.SELF_TEST)
    assert (test["equal"], test["recorded_batch_size"], test["batch_size"]) == (True, BATCH, BATCH // 2)
    assert training.weights() == two_stages.weights()


def test_stages_start_where_decided(tmp_path: Path, basics: dict[str, Any]) -> None:
    """A run that decides two stages at its end, one after the other, ends like one that had them from the start."""
    last: dict[str, Any] = {"first_example": 42 * BATCH, "batch_size": 1, "grad_accumulation_steps": 12}
    whole = halved(Training.create(tmp_path / "whole", basics | CHANGES)).append_stage(**last).finish()
    decided = Training.create(tmp_path / "decided", basics | CHANGES).finish()
    halved(decided).finish(2).append_stage(**last).finish(3)
    started = [event.data for event in decided.events(Kind.STARTED)]
    assert [(start["iteration"], start["stage"]) for start in started] == [(0, 0), (SWITCH, 1), (42, 2)]
    assert decided.weights() == whole.weights()


@pytest.mark.longest
def test_probe_changes_no_bit(tmp_path: Path, basics: dict[str, Any]) -> None:
    """The probe draws dropout masks of its own, and restores the random key."""
    probed, plain = (
        Training.create(
            tmp_path / f"probe-{probe}", basics | CHANGES | {"iters": 18, "lq": {"memory": {"probe": probe}}}
        ).finish()
        for probe in (True, False)
    )
    phases = [event.data["phase"] for event in probed.events(Kind.PHASE)]
    assert phases.index("tokenize") < phases.index("probe") < phases.index("train")
    assert plain.phases("probe") == 0
    assert probed.losses() == plain.losses()
    assert probed.weights() == plain.weights()
