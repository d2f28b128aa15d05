"""A run stopped half way ends like an undisturbed one, bit for bit, and both end like MLX-LM's own.

Five runs between them use every kind of adapter, optimizer, schedule and data format.
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
    """The same job twice: in one go, and stopped half way and resumed."""

    config: dict[str, Any]
    undisturbed: Training
    resumed: Training


QUICK = ("lora-adam-cosine-accumulated", "full-sgd-steps-tools")
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in RUNS]


@pytest.fixture(scope="module", params=NAMES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, basics: dict[str, Any]) -> Pair:
    """Both, trained."""
    folder = tmp_path_factory.mktemp("exact")
    config = dict(RUNS[request.param])
    make: Callable[..., rows.Row] = config.pop("rows")
    config = basics | {"iters": ITERS, "save_every": 7, "steps_per_eval": 20, "steps_per_report": 3} | config
    config["data"] = str(rows.write(folder / "data", make))
    undisturbed = Training.laid_out(folder / "undisturbed", config).finish()
    resumed = Training.laid_out(folder / "resumed", config).stopped_half_way().finish(2)
    return Pair(config, undisturbed, resumed)


def test_the_weights_are_the_same_bit_for_bit(pair: Pair) -> None:
    assert pair.undisturbed.newest.iteration == pair.resumed.newest.iteration == ITERS
    assert pair.resumed.weights() == pair.undisturbed.weights()
    for name in ("optimizer.safetensors", "adapters.safetensors"):
        left, right = (training.newest.path / name for training in (pair.undisturbed, pair.resumed))
        assert left.read_bytes() == right.read_bytes()


def test_every_loss_is_the_same_and_is_told_once(pair: Pair) -> None:
    losses = pair.undisturbed.losses()
    assert list(losses) == list(range(1, ITERS + 1))
    assert pair.resumed.losses() == losses
    assert pair.resumed.validations() == pair.undisturbed.validations()
    assert list(pair.undisturbed.validations()) == [0, 20, 40]
    assert (
        pair.resumed.events(Kind.PROGRESS)[-1].data["tokens"]
        == pair.undisturbed.events(Kind.PROGRESS)[-1].data["tokens"]
    )


def test_the_resume_proves_itself(pair: Pair) -> None:
    begun = pair.resumed.events(Kind.STARTED)[1].data
    assert begun["resume_quality"] == "exact"
    assert begun["resumed_from"] == f"step-{begun['iteration']:07d}"
    assert begun["iteration"] % pair.resumed.spec.grad_accumulation_steps == 0
    proof = pair.resumed.said(Kind.SELF_TEST)
    assert proof["equal"] is True
    assert proof["measured"] == proof["recorded"]
    assert proof["iteration"] == begun["iteration"]


def test_the_first_attempt_says_where_it_stopped(pair: Pair) -> None:
    stopped, done = pair.resumed.events(Kind.ENDED)
    assert (stopped.data["outcome"], stopped.data["reason"]) == ("stopped", "stopped_by_user")
    assert stopped.data["iteration"] == pair.resumed.events(Kind.STARTED)[1].data["iteration"]
    assert (done.data["outcome"], done.data["reason"], done.data["iteration"]) == ("done", "completed", ITERS)


def test_checkpoints_come_as_asked_and_only_between_updates(pair: Pair) -> None:
    accumulation = pair.undisturbed.spec.grad_accumulation_steps
    due = {-(-iteration // accumulation) * accumulation for iteration in range(7, ITERS, 7)} | {20, ITERS}
    assert set(pair.undisturbed.checkpoints) <= due
    assert {iteration for iteration in due if iteration % 20} <= set(pair.undisturbed.checkpoints)
    assert not [iteration for iteration in pair.resumed.checkpoints[:-1] if iteration % accumulation]


def test_it_is_what_mlx_lm_trains_from_the_same_batches(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = pair.undisturbed.spec

    def order(lengths: tuple[int, ...], sort_keys: tuple[int, ...]) -> BatchOrder:
        return BatchOrder(
            lengths=lengths,
            sort_keys=sort_keys,
            batch_size=spec.batch_size,
            seed=spec.seed,
            mode=spec.lq.batching,
        )

    told = trained_by_mlx_lm(pair.config, order, tmp_path, monkeypatch)
    losses = pair.undisturbed.losses()
    assert losses == told.losses
    check_learning_rates(pair.undisturbed, told)
    validations = pair.undisturbed.validations()
    assert validations[0][0] == pytest.approx(told.first_validation, rel=1e-5)
    assert validations[ITERS][0] == pytest.approx(told.last_validation, rel=1e-5)
    assert pair.undisturbed.weights() == told.weights


def check_learning_rates(training: Training, told: Reference) -> None:
    """The rate and the tokens at the end of each line are MLX-LM's."""
    lines = [event.data for event in training.events(Kind.PROGRESS) if event.data["losses"]]
    assert len(lines) > 1
    for line in lines:
        assert line["learning_rate"] == told.learning_rates[line["iteration"]]
        assert line["tokens"] == told.tokens[line["iteration"]]
