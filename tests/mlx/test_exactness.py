"""A run stopped half way ends bit for bit like an uninterrupted one, and both end like MLX-LM's own.

Together, the five runs use every kind of adapter, optimizer, schedule and data format.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.model.events import Kind
from tests.mlx import rows
from tests.mlx.reference import Reference, trained_by_mlx_lm
from tests.mlx.training import FIRST_EVER_S, Training
from workers.data.batches import BatchOrder

pytestmark = pytest.mark.timeout(FIRST_EVER_S)

ITERS = 40

RUNS: dict[str, dict[str, Any]] = {
    "lora-adam-cosine-accumulated": {
        "rows": rows.chat,
        "optimizer": "adam",
        "grad_accumulation_steps": 3,
        "lr_schedule": {"name": "cosine_decay", "arguments": [1e-3, 12], "warmup": 3},
    },
    "dora-adamw-linear-masked-completions": {
        "rows": rows.completions,
        "fine_tune_type": "dora",
        "optimizer": "adamw",
        "optimizer_config": {"adamw": {"weight_decay": 0.1, "betas": [0.8, 0.95]}},
        "mask_prompt": True,
        "lr_schedule": {"name": "linear_schedule", "arguments": [2e-3, 1e-4, 30]},
    },
    "lora-muon-exponential-text": {
        "lq": {"loss_weighting": "batch"},
        "rows": rows.text,
        "optimizer": "muon",
        "lora_parameters": {
            "rank": 4,
            "scale": 10.0,
            "dropout": 0.0,
            "keys": ["self_attn.q_proj", "self_attn.v_proj"],
        },
        "lr_schedule": {"name": "exponential_decay", "arguments": [1e-3, 0.97]},
    },
    "full-sgd-steps-tools": {
        "lq": {"loss_weighting": "batch"},
        "rows": rows.tools,
        "fine_tune_type": "full",
        "num_layers": 1,
        "optimizer": "sgd",
        "optimizer_config": {"sgd": {"momentum": 0.9}},
        "lr_schedule": {
            "name": "step_decay",
            "arguments": [1e-3, 0.5, 7],
            "warmup": 4,
            "warmup_init": 1e-4,
        },
    },
    "lora-adafactor-checkpointed-shuffled": {
        "rows": rows.chat,
        "optimizer": "adafactor",
        "optimizer_config": {"adafactor": {"relative_step": False}},
        "grad_checkpoint": True,
        "grad_accumulation_steps": 2,
        "lq": {"batching": "shuffled"},
    },
}


@dataclasses.dataclass(frozen=True)
class Pair:
    """The same job twice: uninterrupted, and stopped half way and resumed."""

    config: dict[str, Any]
    undisturbed: Training
    resumed: Training


QUICK = ("lora-adam-cosine-accumulated", "full-sgd-steps-tools")
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in RUNS]


@pytest.fixture(scope="module", params=NAMES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, basics: dict[str, Any]) -> Pair:
    """Train both."""
    folder = tmp_path_factory.mktemp("exact")
    config = dict(RUNS[request.param])
    make: Callable[..., rows.Row] = config.pop("rows")
    config = basics | {"iters": ITERS, "save_every": 7, "steps_per_eval": 20, "steps_per_report": 3} | config
    config["data"] = str(rows.write(folder / "data", make))
    undisturbed = Training.create(folder / "undisturbed", config).finish()
    resumed = Training.create(folder / "resumed", config).stop_half_way().finish(2)
    return Pair(config, undisturbed, resumed)


def test_weights_are_equal_bit_for_bit(pair: Pair) -> None:
    assert pair.undisturbed.newest.iteration == pair.resumed.newest.iteration == ITERS
    assert pair.resumed.weights() == pair.undisturbed.weights()
    for name in ("optimizer.safetensors", "adapters.safetensors"):
        left, right = (training.newest.path / name for training in (pair.undisturbed, pair.resumed))
        assert left.read_bytes() == right.read_bytes()


def test_each_loss_is_equal_and_once(pair: Pair) -> None:
    losses = pair.undisturbed.losses()
    assert list(losses) == list(range(1, ITERS + 1))
    assert pair.resumed.losses() == losses
    assert pair.resumed.validations() == pair.undisturbed.validations()
    assert list(pair.undisturbed.validations()) == [0, 20, 40]
    assert pair.resumed.reports()[-1]["tokens"] == pair.undisturbed.reports()[-1]["tokens"]


def test_resume_passes_its_self_test(pair: Pair) -> None:
    started = pair.resumed.only(Kind.STARTED, attempt=2)
    assert started["resume_quality"] == "exact"
    assert started["resumed_from"] == f"step-{started['iteration']:07d}"
    assert started["iteration"] % pair.resumed.spec.grad_accumulation_steps == 0
    test = pair.resumed.only(Kind.SELF_TEST)
    assert test["equal"] is True
    assert test["measured"] == test["recorded"]
    assert test["iteration"] == started["iteration"]


def test_ended_events_name_iterations(pair: Pair) -> None:
    stopped, done = pair.resumed.events(Kind.ENDED)
    assert (stopped.data["outcome"], stopped.data["reason"]) == ("stopped", "stopped_by_user")
    assert stopped.data["iteration"] == pair.resumed.only(Kind.STARTED, attempt=2)["iteration"]
    assert (done.data["outcome"], done.data["reason"], done.data["iteration"]) == ("done", "completed", ITERS)


def test_checkpoints_fall_between_updates(pair: Pair) -> None:
    accumulation = pair.undisturbed.spec.grad_accumulation_steps
    due = {-(-iteration // accumulation) * accumulation for iteration in range(7, ITERS, 7)} | {20, ITERS}
    assert set(pair.undisturbed.checkpoints) <= due
    assert {iteration for iteration in due if iteration % 20} <= set(pair.undisturbed.checkpoints)
    assert not [iteration for iteration in pair.resumed.checkpoints[:-1] if iteration % accumulation]


def test_mlx_lm_trains_the_same_weights(pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = pair.undisturbed.spec

    def order(lengths: tuple[int, ...], sort_keys: tuple[int, ...]) -> BatchOrder:
        return BatchOrder(
            lengths=lengths,
            sort_keys=sort_keys,
            batch_size=spec.batch_size,
            seed=spec.seed,
            mode=spec.lq.batching,
        )

    weighs_tokens = spec.lq.weighs_tokens
    reference = trained_by_mlx_lm(pair.config, order, tmp_path, monkeypatch, weighs_tokens=weighs_tokens)
    assert (pair.undisturbed.losses() == reference.losses) is not weighs_tokens
    check_learning_rates(pair.undisturbed, reference)
    validations = pair.undisturbed.validations()
    assert validations[0][0] == pytest.approx(reference.first_validation, rel=1e-5)
    assert validations[ITERS][0] == pytest.approx(reference.last_validation, rel=1e-5)
    assert pair.undisturbed.weights() == reference.weights


def check_learning_rates(training: Training, reference: Reference) -> None:
    """Compare the learning rate and the tokens at the end of each report."""
    assert len(training.reports()) > 1
    for report in training.reports():
        assert report["learning_rate"] == reference.learning_rates[report["iteration"]]
        assert report["tokens"] == reference.tokens[report["iteration"]]
