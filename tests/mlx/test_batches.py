"""Batches compared with MLX-LM's own: the same arrays from the same rows."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from mlx_lm.tuner import trainer
from mlx_lm.tuner.datasets import CacheDataset

from workers.data.batches import BatchOrder, padded

iterate_batches: Any = trainer.iterate_batches  # it has no annotations

Row = tuple[list[int], int]


class TokenizedDataSet:
    """A data set of rows of tokens and answer offsets, like those of MLX-LM after tokenizing."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.rows[index]

    def process(self, row: Row) -> Row:
        return row


def rows_of(count: int, *, longest: int) -> list[Row]:
    """Return rows that differ in their first token."""
    chance = random.Random(count)  # noqa: S311 makes rows, guards nothing
    return [([index + 1, *[7] * chance.randint(0, longest - 1)], chance.randint(0, 3)) for index in range(count)]


@pytest.mark.parametrize("longest", [1, 31, 32, 33, 64, 200])
@pytest.mark.parametrize("limit", [16, 32, 33, 64, 2048])
def test_padding_equals_that_of_mlx_lm(longest: int, limit: int) -> None:
    rows = rows_of(3, longest=longest)
    theirs, their_spans = next(
        iterate_batches(dataset=CacheDataset(TokenizedDataSet(rows)), batch_size=3, max_seq_length=limit)
    )
    ours, our_spans = padded([row[0] for row in rows], [row[1] for row in rows], limit)
    assert np.array_equal(np.array(theirs), ours)
    assert np.array_equal(np.array(their_spans), our_spans)


def test_shuffled_batches_equal_mlx_lm() -> None:
    rows = rows_of(23, longest=60)
    dataset = CacheDataset(TokenizedDataSet(rows))
    theirs = {
        tuple(batch[:, 0].tolist()) for batch, _ in iterate_batches(dataset=dataset, batch_size=4, max_seq_length=64)
    }
    order = BatchOrder(
        lengths=tuple(len(row[0]) for row in rows),
        sort_keys=tuple(dataset.itemlen(index) for index in range(len(rows))),
        batch_size=4,
        seed=5,
        mode="shuffled",
    )
    for epoch in range(3):
        positions = range(epoch * order.batches_per_epoch, (epoch + 1) * order.batches_per_epoch)
        assert {tuple(rows[row][0][0] for row in order.rows(position)) for position in positions} == theirs
