"""`python -m tests.benchmarks.guarded_step`: the cost of the loss guard inside MLX's compiled step, in one process.

MLX-LM's train() runs the same batches with the plain and with the guarded optimizer, in alternating rounds. Prints a
JSON list of [seconds guarded, seconds plain]. The model is larger than those of the other figures (hidden 128,
2 layers), because the cost of the guard is one pass over the adapter and the figure is its share of a step.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx_lm.models import qwen2
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.trainer import TrainingArgs, default_loss, train
from mlx_lm.tuner.utils import linear_to_lora_layers

from workers.mlx.guarded_optimizer import GuardedOptimizer

WARM, TIMED = 3, 30
ROWS, TOKENS, VOCABULARY = 4, 64, 512


class _Clock(TrainingCallback):
    """Records the time of each iteration."""

    def __init__(self) -> None:
        self.at: list[float] = []

    def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
        """Record the time."""
        self.at.append(time.perf_counter())


def main() -> int:
    """Measure and print the results."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.guarded_step", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    results = []
    for number in range(rounds):
        sides: list[Callable[[], float]] = [lambda: _seconds(guarded=True), lambda: _seconds(guarded=False)]
        if number % 2:
            plain, mine = sides[1](), sides[0]()
        else:
            mine, plain = sides[0](), sides[1]()
        results.append((mine, plain))
    print(json.dumps(results))  # noqa: T201 the output
    return 0


def _seconds(*, guarded: bool) -> float:
    """Return the seconds of the timed iterations."""
    mx.random.seed(0)
    size = {"hidden_size": 128, "num_hidden_layers": 2, "intermediate_size": 256, "num_attention_heads": 4}
    more = {"model_type": "qwen2", "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "vocab_size": VOCABULARY}
    model: Any = qwen2.Model(qwen2.ModelArgs.from_dict(size | more))
    model.freeze()
    linear_to_lora_layers(model, 2, {"rank": 16, "scale": 2.0, "dropout": 0.05})
    inner = optim.AdamW(learning_rate=1e-4)
    optimizer: Any = GuardedOptimizer(inner) if guarded else inner
    optimizer.init(model.trainable_parameters())
    mx.eval(model.parameters(), optimizer.state)
    clock = _Clock()
    with tempfile.TemporaryDirectory() as scratch:  # train() always saves
        _train(model, optimizer, clock, Path(scratch), guarded=guarded)
    return clock.at[-1] - clock.at[WARM - 1]


def _train(model: Any, optimizer: Any, clock: _Clock, scratch: Path, *, guarded: bool) -> None:
    arguments = TrainingArgs(
        batch_size=ROWS,
        iters=WARM + TIMED,
        val_batches=0,
        steps_per_report=1,
        steps_per_save=10**9,
        adapter_file=str(scratch / "adapters.safetensors"),
    )
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        train(
            model=model,
            optimizer=optimizer,
            train_dataset=[0],
            val_dataset=None,
            args=arguments,
            loss=optimizer.loss if guarded else default_loss,
            iterate_batches=lambda **_: _batches(),
            training_callback=clock,
        )


def _batches() -> Iterator[tuple[mx.array, mx.array]]:
    chance = np.random.default_rng(0)
    while True:
        tokens = chance.integers(1, VOCABULARY, (ROWS, TOKENS + 1)).astype(np.int32)
        yield mx.array(tokens), mx.array(np.tile(np.array([[0, TOKENS + 1]], np.int32), (ROWS, 1)))


if __name__ == "__main__":
    raise SystemExit(main())
