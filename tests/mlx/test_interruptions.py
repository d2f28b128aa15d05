"""Stops at rare moments, and MLX-LM's own command with the same file."""

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
from jobs.policies.exits import RESUMABLE
from tests.mlx import rows
from tests.mlx.conftest import Build
from tests.mlx.training import FIRST_EVER_S, Training

pytestmark = [pytest.mark.timeout(FIRST_EVER_S), pytest.mark.slow]


def test_mlx_lm_command_gives_same_adapter(tmp_path: Path, basics: dict[str, Any]) -> None:
    """With one batch per epoch there is only one order, so the whole command can be compared, including dropout."""
    data = rows.write(tmp_path / "data", rows.chat, train=4, valid=4)
    adapters = tmp_path / "theirs"
    config = basics | {"data": str(data), "batch_size": 4, "iters": 20, "seed": 3, "optimizer": "adamw"}
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config | {"train": True, "adapter_path": str(adapters)}))
    subprocess.run(
        [sys.executable, "-m", "mlx_lm", "lora", "-c", str(file)], check=True, capture_output=True, timeout=FIRST_EVER_S
    )
    training = Training.create(tmp_path / "ours", config | {"lq": {"batching": "shuffled"}}).finish()
    assert training.weights() == (adapters / "adapters.safetensors").read_bytes()


@pytest.mark.longest
def test_stop_during_test_repeats_test(build: Build, tmp_path: Path) -> None:
    data = rows.write(tmp_path / "data", rows.chat, test=2000)
    training = build(data=str(data), test=True)
    code = training.signal_when(lambda: training.phases("test") > 1, signal.SIGTERM)
    assert code == RESUMABLE, training.log_tail()
    weights = training.weights()
    assert training.only(Kind.TEST)["iteration"] == 0
    training.finish(2)
    assert training.only(Kind.TEST, attempt=2)["examples"] == 2000
    assert training.weights() == weights
    assert not training.reports(attempt=2)


@pytest.mark.longest
def test_stop_during_last_validation(build: Build, tmp_path: Path) -> None:
    """The next attempt validates."""
    data = rows.write(tmp_path / "data", rows.chat, valid=400)
    training = build("stopped", data=str(data), steps_per_eval=1000)
    code = training.signal_when(lambda: training.phases("validate") > 1, signal.SIGTERM)
    assert code == RESUMABLE, training.log_tail()
    training.finish(2)
    undisturbed = build("undisturbed", data=str(data), steps_per_eval=1000).finish()
    assert training.validations() == undisturbed.validations()
    assert training.weights() == undisturbed.weights()
    assert training.newest.state().validation == undisturbed.newest.state().validation


@pytest.mark.longest
def test_long_validation_has_heartbeats(build: Build, tmp_path: Path) -> None:
    """A line at least every 5 s is the heartbeat, also during a long validation."""
    data = rows.write(tmp_path / "data", rows.chat, train=2, valid=1500)
    training = build(data=str(data), batch_size=1, iters=1).finish()
    times = [event.awake for event in training.events()]
    assert times[-1] - times[0] > 5.0, "too fast to test anything: add rows"
    assert max(later - earlier for earlier, later in itertools.pairwise(times)) < 10.0
    beats = [event.data["iteration"] for event in training.events(Kind.PROGRESS) if not event.data["losses"]]
    assert beats
    assert set(beats) <= {0, 1}


def test_damaged_checkpoints_start_over(build: Build) -> None:
    training = build("job", iters=60, steps_per_eval=60).stop_half_way()
    undisturbed = build("undisturbed", iters=60, steps_per_eval=60).finish()
    count = len(training.checkpoints)
    for iteration in training.checkpoints:
        training.checkpoint_at(iteration).adapters.unlink()
    training.finish(2)
    started = training.only(Kind.STARTED, attempt=2)
    assert (started["resume_quality"], started["resumed_from"], started["iteration"]) == ("fresh", None, 0)
    assert len(training.warnings("checkpoint_invalid")) == count
    assert training.weights() == undisturbed.weights()
    assert training.losses() == undisturbed.losses()
