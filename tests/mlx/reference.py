"""Trains with MLX-LM itself, as `mlx_lm.lora` does; only the order of the rows is replaced."""

from __future__ import annotations

import functools
import statistics
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx_lm.lora
import pytest
from mlx_lm.tuner import trainer
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.datasets import CacheDataset, load_dataset
from mlx_lm.tuner.trainer import evaluate, train
from mlx_lm.utils import load

from workers.data.batches import BatchOrder

iterate_batches: Any = trainer.iterate_batches  # it has no annotations

RowsOf = Callable[[int], Sequence[int]]
OrderOf = Callable[[tuple[int, ...], tuple[int, ...]], BatchOrder]


class Reference(TrainingCallback):
    """What MLX-LM reported, and the weights it wrote."""

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}
        self.learning_rates: dict[int, float] = {}
        self.tokens: dict[int, int] = {}
        self.first_validation = float("nan")
        self.last_validation = float("nan")
        self.weights = b""

    def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
        """Record the report of an iteration."""
        iteration = train_info["iteration"]
        self.losses[iteration] = train_info["train_loss"]
        self.learning_rates[iteration] = train_info["learning_rate"]
        self.tokens[iteration] = int(train_info["trained_tokens"])

    def on_val_loss_report(self, val_info: dict[str, Any]) -> None:
        """Record the validation before the first iteration."""
        if val_info["iteration"] == 0:
            self.first_validation = val_info["val_loss"]


def trained_by_mlx_lm(
    config: Mapping[str, Any],
    order: OrderOf,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    weighs_tokens: bool = False,
) -> Reference:
    """Train a configuration with mlx_lm.lora's own train_model.

    Args:
        config: a job file.
        order: returns the order of batches for the lengths and sort keys of the rows.
        folder: for the adapter.
        monkeypatch: restores MLX-LM afterwards.
        weighs_tokens: every token of an update has the same weight; the reported losses are then weighted, too.
    """
    every_iteration = {"steps_per_report": 1, "save_every": 10**9, "steps_per_eval": 10**9, "val_batches": -1}
    settings = {key: value for key, value in config.items() if key != "lq"}
    args = types.SimpleNamespace(
        **(mlx_lm.lora.CONFIG_DEFAULTS | settings | every_iteration | {"train": True, "adapter_path": str(folder)})
    )
    loaded: Any = load(args.model)
    model, tokenizer = loaded[0], loaded[1]
    train_set, valid_set, _ = load_dataset(args, tokenizer)
    train_rows = CacheDataset(train_set)
    indices = range(len(train_rows))
    rows_of = order(
        tuple(len(train_rows[index][0]) for index in indices), tuple(train_rows.itemlen(index) for index in indices)
    ).rows
    reference = Reference()
    layer = type(model.layers[0])
    monkeypatch.setattr(layer, "__call__", layer.__call__)  # gradient checkpointing replaces it for good
    loss = trainer.default_loss
    if weighs_tokens:
        loss = weighted_loss(args.batch_size * statistics.fmean(_learned(*train_rows[index]) for index in indices))
    train_in_order = functools.partial(train, iterate_batches=_in_order(rows_of), loss=loss)
    monkeypatch.setattr(mlx_lm.lora, "train", train_in_order)
    mlx_lm.lora.train_model(args, model, train_set, valid_set, reference)
    reference.last_validation = evaluate(
        model=model,
        dataset=CacheDataset(valid_set),
        batch_size=args.batch_size,
        num_batches=-1,
        max_seq_length=args.max_seq_length,
    )
    reference.weights = (folder / "adapters.safetensors").read_bytes()
    return reference


def weighted_loss(expected_tokens: float) -> Callable[..., tuple[mx.array, mx.array]]:
    """Return a loss that divides the sum over the tokens by their expected number."""

    def loss(model: Any, batch: mx.array, lengths: mx.array) -> tuple[mx.array, mx.array]:
        mean, tokens = trainer.default_loss(model, batch, lengths)
        return (mean * tokens / expected_tokens if model.training else mean), tokens

    return loss


def _learned(row: Sequence[int], offset: int) -> int:
    """Return the tokens of a row that MLX-LM's loss counts: the first of the padding is one of them."""
    return len(row) - max(offset, 1) + 1


def _in_order(rows_of: RowsOf) -> Callable[..., Iterator[tuple[mx.array, mx.array]]]:
    """Return iterate_batches with this order; MLX-LM still creates each batch."""

    def batches(dataset: Any, *, loop: bool = False, **more: Any) -> Iterator[tuple[mx.array, mx.array]]:
        if not loop:
            yield from iterate_batches(dataset=dataset, **more)
        position = 0
        while loop:
            rows = [dataset[row] for row in rows_of(position)]
            yield next(iterate_batches(dataset=FixedRows(rows), **more))
            position += 1

    return batches


class FixedRows(CacheDataset):
    """Tokenized rows with the same `itemlen`, so that MLX-LM keeps their order."""

    def __init__(self, rows: list[Any]) -> None:
        super().__init__([()] * len(rows))
        self._proc_data = rows
