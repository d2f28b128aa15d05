"""`python -m tests.benchmarks.convergence`: the effect of bucketing on the validation loss, in one process.

MLX-LM's train() trains a small random Qwen2 with LoRA on the same rows for the same epochs, once in the bucketed order
of lq and once in the order of MLX-LM. A seed determines the rows, the initial adapter and both orders, so that the two
runs of a seed are a pair. The number of rows is a multiple of the batch, so that both orders use every row once per
epoch.

If length and content are correlated, batches of similar length are batches of similar content. The loss of MLX-LM is a
mean over the tokens of a batch, so that a token of a short row has a larger weight in a batch of short rows. lq weights
all tokens of bucketed batches alike (`--loss by-token`, the default); MLX-LM's order has MLX-LM's loss.

The rows here are of three kinds, each with its own grammar. The kind of a row is random (`--content by-chance`) or
depends on its length (`by-length`, the worst case: the rows of a batch are of one kind). The losses are also given for
the shortest and the longest third of the validation rows. Prints a JSON list with one entry per pair.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx_lm.models import qwen2
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.trainer import TrainingArgs, default_loss, train
from mlx_lm.tuner.utils import linear_to_lora_layers

from workers.data.batches import BatchOrder, Rows
from workers.mlx.objectives import CrossEntropy

BATCH, ROWS, VALIDATION_ROWS, EPOCHS = 4, 240, 90, 4
VOCABULARY, KINDS, BRANCHES = 64, 3, 4
MU, SIGMA, SHORTEST, LONGEST = 3.6, 0.7, 8, 256
LEARNING_RATE = 1e-3
LIMIT = 2048

Mode = Literal["bucketed", "shuffled"]
MODES: tuple[Mode, ...] = ("bucketed", "shuffled")
CONTENT = ("by-chance", "by-length")
LOSSES = ("mlx-lm", "by-token")

STUDENT = {3: 3.182, 5: 2.571, 7: 2.365, 9: 2.262, 11: 2.201, 13: 2.160, 15: 2.131, 17: 2.110, 19: 2.093}
"""97.5th percentile of Student's t by degrees of freedom, for even numbers of seeds."""


def main() -> int:
    """Train every pair and print the results."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.convergence", description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument(
        "--content", choices=("by-chance", "by-length"), default="by-chance", help="what the kind of a row depends on"
    )
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    parser.add_argument(
        "--loss", choices=LOSSES, default="by-token", help="of bucketed batches; mlx-lm: the mean of each batch"
    )
    options = parser.parse_args()
    print(json.dumps([_pair(seed, options) for seed in range(options.seeds)]))  # noqa: T201 the output
    return 0


def _pair(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return for each order the losses before and after each epoch, over all rows, the shortest and the longest third,
    and the number of computed positions, padding included.
    """
    generator = np.random.default_rng(seed)
    grammar = _grammar(generator)
    rows, validation = (_drawn(generator, grammar, count, options.content) for count in (ROWS, VALIDATION_ROWS))
    modes = MODES if seed % 2 else MODES[::-1]
    return {mode: _run(mode, rows, validation, seed, options) for mode in modes}


def _grammar(generator: np.random.Generator) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the few, equally likely successors of a token, by kind of row."""
    every = np.tile(np.arange(KINDS, VOCABULARY), (VOCABULARY, 1))
    return np.stack([generator.permuted(every, axis=1)[:, :BRANCHES] for _ in range(KINDS)])


def _drawn(
    generator: np.random.Generator, grammar: np.ndarray[Any, np.dtype[np.int64]], count: int, content: str
) -> Rows:
    """Draw rows of log-normal lengths; by length, the shortest third has the first kind, the longest the last."""
    lengths = np.sort(np.clip(np.round(generator.lognormal(MU, SIGMA, count)), SHORTEST, LONGEST).astype(int))
    tokens = []
    for index, length in enumerate(lengths.tolist()):
        kind = index * KINDS // count if content == "by-length" else int(generator.integers(KINDS))
        row = [kind]  # the first token is the kind
        for pick in generator.integers(0, BRANCHES, length - 1).tolist():
            row.append(int(grammar[kind, row[-1], pick]))
        tokens.append(np.array(row, np.int32))
    order = generator.permutation(count)
    return Rows(tokens=[tokens[index] for index in order], offsets=[0] * count, sort_keys=(1,) * count)


def _run(mode: Mode, rows: Rows, validation: Rows, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    mx.random.seed(seed)
    model = _model()
    optimizer = optim.Adam(learning_rate=options.learning_rate)
    lengths = tuple(len(row) for row in rows.tokens)
    order = BatchOrder(lengths=lengths, sort_keys=rows.sort_keys, batch_size=BATCH, seed=seed, mode=mode)
    losses: list[list[float]] = []
    positions = [0]

    def batches() -> Iterator[tuple[mx.array, mx.array]]:
        for position in range(EPOCHS * order.batches_per_epoch + 1):
            if position % order.batches_per_epoch == 0:
                losses.append(_measured(model, validation))
            if position == EPOCHS * order.batches_per_epoch:
                return
            tokens, spans = rows.padded(order.rows(position), LIMIT)
            positions[0] += tokens.size
            yield mx.array(tokens), mx.array(spans)

    weighs_tokens = mode == "bucketed" and options.loss == "by-token"
    mean_tokens = sum(map(len, rows.tokens)) / order.batches_per_epoch if weighs_tokens else None
    _train(model, optimizer, batches(), EPOCHS * order.batches_per_epoch + 1, _loss(mean_tokens))
    return {"losses": losses, "positions": positions[0]}


def _model() -> Any:
    size = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 4}
    more = {"model_type": "qwen2", "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "vocab_size": VOCABULARY}
    model: Any = qwen2.Model(qwen2.ModelArgs.from_dict(size | more))
    model.freeze()
    linear_to_lora_layers(model, 2, {"rank": 8, "scale": 2.0, "dropout": 0.0})
    mx.eval(model.parameters())
    return model


def _train(
    model: Any, optimizer: Any, batches: Iterator[tuple[mx.array, mx.array]], iterations: int, loss: Any
) -> None:
    with tempfile.TemporaryDirectory() as scratch:  # train() always saves
        arguments = TrainingArgs(
            batch_size=BATCH,
            iters=iterations,
            val_batches=0,
            steps_per_report=10**9,
            steps_per_save=10**9,
            adapter_file=str(Path(scratch) / "adapters.safetensors"),
        )
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            train(
                model=model,
                optimizer=optimizer,
                train_dataset=[0],
                val_dataset=None,
                args=arguments,
                loss=loss,
                iterate_batches=lambda **_: batches,
                training_callback=TrainingCallback(),
            )


def _loss(mean_tokens: float | None) -> Any:
    """Return the loss of MLX-LM; with `mean_tokens`, multiplied by the tokens of the batch over that mean."""

    def weighted(model: Any, batch: mx.array, spans: mx.array) -> tuple[mx.array, mx.array]:
        loss, tokens = default_loss(model, batch, spans)
        return loss * tokens / mean_tokens, tokens

    return default_loss if mean_tokens is None else weighted


def _measured(model: Any, rows: Rows) -> list[float]:
    """Return nats per token over all rows, the shortest third and the longest third."""
    ordered = sorted(range(len(rows)), key=lambda row: len(rows.tokens[row]))
    sums: list[float] = []
    tokens: list[int] = []
    model.eval()
    for start in range(0, len(ordered), BATCH):
        batch, spans = rows.padded(ordered[start : start + BATCH], LIMIT)
        losses = CrossEntropy().row_losses(model, mx.array(batch), mx.array(spans))
        sums += losses.sums.tolist()  # type: ignore[arg-type]
        tokens += losses.counts.tolist()  # type: ignore[arg-type]
    model.train()
    third = len(ordered) // 3
    return [_mean(sums[part], tokens[part]) for part in (slice(None), slice(third), slice(-third, None))]


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of paired differences, one per seed, and its 95 % interval by Student's t."""
    count = len(differences)
    mean = math.fsum(differences) / count
    spread = math.sqrt(math.fsum((each - mean) ** 2 for each in differences) / (count - 1))
    half = STUDENT[count - 1] * spread / math.sqrt(count)
    return mean, mean - half, mean + half


def at_equal_rows(pair: dict[str, Any], part: int = 0) -> float:
    """Return the difference of the bucketed loss to the shuffled one after the same epochs, in percent.

    Args:
        pair: of one seed.
        part: 0 for all validation rows, 1 for the shortest third, 2 for the longest.
    """
    mine, other = (pair[mode]["losses"][-1][part] for mode in MODES)
    return float(100 * (mine / other - 1))


def at_equal_work(pair: dict[str, Any]) -> float:
    """Return the difference after the same number of computed positions, padding included: those of the bucketed run.

    The shuffled loss is interpolated linearly between epochs.
    """
    mine, other = (pair[mode] for mode in MODES)
    epochs = EPOCHS * mine["positions"] / other["positions"]
    before = min(int(epochs), EPOCHS - 1)
    left, right = other["losses"][before][0], other["losses"][before + 1][0]
    return float(100 * (mine["losses"][-1][0] / (left + (epochs - before) * (right - left)) - 1))


def _mean(sums: Sequence[float], tokens: Sequence[int]) -> float:
    return math.fsum(sums) / sum(tokens)


if __name__ == "__main__":
    raise SystemExit(main())
