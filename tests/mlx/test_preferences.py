"""Preference objectives train, validate and resume exactly, and refuse what would not be exact."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from jobs.model.events import Kind
from jobs.policies.exits import NEVER_RETRY
from tests.mlx import rows
from tests.mlx.training import FIRST_EVER_S, Training

pytestmark = pytest.mark.timeout(FIRST_EVER_S)

OBJECTIVES: dict[str, dict[str, Any]] = {
    "dpo": {"name": "dpo", "label_smoothing": 0.1},
    "orpo": {"name": "orpo"},
    "simpo": {"name": "simpo"},
    "cpo": {"name": "cpo"},
    "kto": {"name": "kto"},
    "kto-without-divergence": {"name": "kto", "loss": "apo_zero_unpaired"},
}
CHANGES: dict[str, Any] = {
    "iters": 48,
    "optimizer": "adamw",
    "grad_accumulation_steps": 2,
    "steps_per_report": 4,
    "steps_per_eval": 12,
    "save_every": 8,
    "test": True,
    "lora_parameters": {"rank": 4, "scale": 10.0, "dropout": 0.1},
}


def created(folder: Path, basics: dict[str, Any], objective: str, **changes: Any) -> Training:
    """Create a job with rows for an objective."""
    data = folder.parent / f"data-{objective}"
    if not data.exists():
        make = (
            rows.labelled
            if objective.startswith("kto")
            else rows.conversation
            if objective == "cpo"
            else rows.preference
        )
        rows.write(data, make, train=23, valid=8, test=4)
    settings = basics | CHANGES | {"data": str(data), "lq": {"objective": OBJECTIVES[objective]}} | changes
    return Training.create(folder, settings)


def sha256(training: Training) -> str:
    return hashlib.sha256(training.weights()).hexdigest()


def kill_at(training: Training, iteration: int, attempt: int) -> None:
    """Kill -9 after the checkpoint of an iteration, in the middle of training."""
    code = training.signal_when(
        lambda: training.checkpointed(iteration, attempt=attempt), signal.SIGKILL, attempt=attempt
    )
    assert code == -signal.SIGKILL, training.log_tail()


def killed_twice(training: Training) -> Training:
    kill_at(training, 8, 1)
    kill_at(training, 24, 2)
    return training.finish(3)


@pytest.mark.parametrize(
    "objective", [name if name == "dpo" else pytest.param(name, marks=pytest.mark.slow) for name in OBJECTIVES]
)
def test_killed_run_ends_like_undisturbed(tmp_path: Path, basics: dict[str, Any], objective: str) -> None:
    undisturbed = created(tmp_path / "undisturbed", basics, objective).finish()
    killed = killed_twice(created(tmp_path / "killed", basics, objective))
    assert sha256(killed) == sha256(undisturbed)
    assert killed.losses() == undisturbed.losses()
    assert killed.validations() == undisturbed.validations()
    starts = [event.data for event in killed.events(Kind.STARTED)]
    assert [start["resume_quality"] for start in starts] == ["fresh", "exact", "exact"]
    assert all(event.data["equal"] for event in killed.events(Kind.SELF_TEST))
    assert killed.phases("reference") == (1 if "kto" in objective or objective == "dpo" else 0) * 3
