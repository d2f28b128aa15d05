"""Rare moments, and MLX-LM's own command on the same file."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.model.events import Kind
from tests.harness import until
from tests.mlx import rows
from tests.mlx.conftest import Build
from tests.mlx.training import FIRST_EVER_S, Training

pytestmark = [pytest.mark.timeout(FIRST_EVER_S), pytest.mark.slow]


def test_mlx_lms_own_command_ends_with_the_very_same_adapter(tmp_path: Path, basics: dict[str, Any]) -> None:
    """With one batch an epoch there is only one order, so the whole command can be compared, dropout and all."""
    data = rows.write(tmp_path / "data", rows.chat, train=4, valid=4)
    adapters = tmp_path / "theirs"
    config = basics | {"data": str(data), "batch_size": 4, "iters": 20, "seed": 3, "optimizer": "adamw"}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config | {"train": True, "adapter_path": str(adapters)}))
    subprocess.run(
        [sys.executable, "-m", "mlx_lm", "lora", "-c", str(file)], check=True, capture_output=True, timeout=FIRST_EVER_S
    )
    training = Training.laid_out(tmp_path / "ours", config | {"lq": {"batching": "shuffled"}}).finish()
    assert training.weights() == (adapters / "adapters.safetensors").read_bytes()


@pytest.mark.longest
def test_a_stop_while_the_test_set_is_measured_costs_no_training(build: Build, tmp_path: Path) -> None:
    data = rows.write(tmp_path / "data", rows.chat, test=2000)
    training = build(data=str(data), test=True)
    with training.running(1) as child:
        until(
            lambda: [event for event in training.events(Kind.PHASE) if event.data["phase"] == "test"][1:],
            "the test at the end to begin",
            seconds=FIRST_EVER_S,
            every=0,
        )
        child.send_signal(signal.SIGTERM)
        assert child.wait(FIRST_EVER_S) == 75, training.story()
    weights = training.weights()
    assert [event.data["iteration"] for event in training.events(Kind.TEST)] == [0]
    training.finish(2)
    assert [event.data["examples"] for event in training.events(Kind.TEST, attempt=2)] == [2000]
    assert training.weights() == weights
    assert not [event for event in training.events(Kind.PROGRESS, attempt=2) if event.data["losses"]]


@pytest.mark.longest
def test_a_stop_while_it_validates_at_the_end_leaves_the_validation_to_the_next_attempt(
    build: Build, tmp_path: Path
) -> None:
    data = rows.write(tmp_path / "data", rows.chat, valid=400)
    training = build("stopped", data=str(data), steps_per_eval=1000)
    with training.running(1) as child:
        until(
            lambda: [event for event in training.events(Kind.PHASE) if event.data["phase"] == "validate"][1:],
            "the last validation to begin",
            seconds=FIRST_EVER_S,
            every=0,
        )
        child.send_signal(signal.SIGTERM)
        assert child.wait(FIRST_EVER_S) == 75, training.story()
    training.finish(2)
    undisturbed = build("undisturbed", data=str(data), steps_per_eval=1000).finish()
    assert training.validations() == undisturbed.validations()
    assert training.weights() == undisturbed.weights()
    assert training.newest.state().validation == undisturbed.newest.state().validation


@pytest.mark.longest
def test_a_long_wait_is_not_silent(build: Build, tmp_path: Path) -> None:
    """A line at least every 5 s is the heartbeat, also where a validation takes longer."""
    data = rows.write(tmp_path / "data", rows.chat, train=2, valid=1500)
    training = build(data=str(data), batch_size=1, iters=1).finish()
    times = [event.awake for event in training.events()]
    assert times[-1] - times[0] > 5.0, "too fast to show anything: give it more rows"
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 10.0
    beats = [event for event in training.events(Kind.PROGRESS) if not event.data["losses"]]
    assert beats
    assert {event.data["iteration"] for event in beats} <= {0, 1}


def test_without_a_sound_checkpoint_it_starts_over_and_says_why(build: Build) -> None:
    training = build("job", iters=60, steps_per_eval=60).stopped_half_way()
    undisturbed = build("undisturbed", iters=60, steps_per_eval=60).finish()
    for iteration in training.checkpoints:
        (training.job_dir.checkpoints / f"step-{iteration:07d}" / "adapters.safetensors").unlink()
    count = len(training.checkpoints)
    training.finish(2)
    begun = training.events(Kind.STARTED)[1].data
    assert (begun["resume_quality"], begun["resumed_from"], begun["iteration"]) == ("fresh", None, 0)
    warnings = training.events(Kind.WARNING, attempt=2)
    assert [event.data["code"] for event in warnings] == ["checkpoint_invalid"] * count
    assert training.weights() == undisturbed.weights()
    assert training.losses() == undisturbed.losses()
