"""Batches beside MLX-LM's own: the same arrays from the same rows."""

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


class Tokenised:
    """A data set of rows of tokens and where the answer begins, as MLX-LM's data sets are after tokenising."""

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Row:
        return self.rows[place]

    def process(self, row: Row) -> Row:
        return row


def made(count: int, *, longest: int) -> list[Row]:
    """Rows that can be told apart by their first token."""
    chance = random.Random(count)  # noqa: S311 makes rows, guards nothing
    return [([place + 1, *[7] * chance.randint(0, longest - 1)], chance.randint(0, 3)) for place in range(count)]


@pytest.mark.parametrize("longest", [1, 31, 32, 33, 64, 200])
@pytest.mark.parametrize("limit", [16, 32, 33, 64, 2048])
def test_rows_are_padded_and_cut_exactly_as_mlx_lm_does(longest: int, limit: int) -> None:
    rows = made(3, longest=longest)
    theirs, their_spans = next(
        iterate_batches(dataset=CacheDataset(Tokenised(rows)), batch_size=3, max_seq_length=limit)
    )
    ours, our_spans = padded([row[0] for row in rows], [row[1] for row in rows], limit)
    assert np.array_equal(np.array(theirs), ours)
    assert np.array_equal(np.array(their_spans), our_spans)


def test_shuffled_makes_the_batches_that_mlx_lm_makes() -> None:
    rows = made(23, longest=60)
    dataset = CacheDataset(Tokenised(rows))
    theirs = {
        tuple(batch[:, 0].tolist()) for batch, _ in iterate_batches(dataset=dataset, batch_size=4, max_seq_length=64)
    }
    order = BatchOrder(
        lengths=tuple(len(row[0]) for row in rows),
        sort_keys=tuple(dataset.itemlen(place) for place in range(len(rows))),
        batch_size=4,
        seed=5,
        mode="shuffled",
    )
    for epoch in range(3):
        positions = range(epoch * order.batches_per_epoch, (epoch + 1) * order.batches_per_epoch)
        assert {tuple(rows[row][0][0] for row in order.rows(position)) for position in positions} == theirs
