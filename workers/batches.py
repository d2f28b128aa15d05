"""Which rows make which batch: a pure function of (seed, epoch, salt). No mlx, no files.

Batch k of a run lies in epoch k // batches_per_epoch; only that epoch's order is drawn, so any position is found
without walking there. That is half of an exact resume; the other half is in checkpoints.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

Table = np.ndarray[tuple[int, int], np.dtype[np.int32]]
"""Whole numbers in rows and columns."""

WINDOW_BATCHES = 50
"""Bucketing sorts by length inside windows of this many batches, so that every epoch still mixes rows."""

PAD_TO = 32
"""MLX-LM pads to one more than a multiple of this (mlx_lm/tuner/trainer.py, iterate_batches)."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BatchOrder:
    """The order of a whole run. Compared by identity: looking up a drawn epoch must not read every length again."""

    lengths: tuple[int, ...]  # tokens of each row
    sort_keys: tuple[int, ...]  # what MLX-LM sorts by before it cuts batches (`shuffled`)
    batch_size: int
    seed: int
    salt: int = 0
    mode: Literal["bucketed", "shuffled"] = "bucketed"

    def __post_init__(self) -> None:
        """Check what only a programmer can get wrong; configs has refused too little data long before."""
        assert len(self.lengths) >= self.batch_size > 0

    @property
    def batches_per_epoch(self) -> int:
        """Batches in an epoch; the rows that do not fill one are left out, other ones in each epoch where bucketed."""
        return len(self.lengths) // self.batch_size

    def rows(self, position: int) -> tuple[int, ...]:
        """Return the row numbers of the batch at `position` (from 0) of the run."""
        epoch, place = divmod(position, self.batches_per_epoch)
        return _epoch_order(self, epoch)[place]


@lru_cache(maxsize=2)
def _epoch_order(order: BatchOrder, epoch: int) -> tuple[tuple[int, ...], ...]:
    generator = np.random.default_rng([order.seed, epoch, order.salt])
    batches = _bucketed(order, generator) if order.mode == "bucketed" else _fixed(order)
    return tuple(batches[place] for place in generator.permutation(len(batches)))


def _bucketed(order: BatchOrder, generator: np.random.Generator) -> list[tuple[int, ...]]:
    """Shuffle the rows, leave out the remainder, sort by length inside windows, cut."""
    size = order.batch_size
    rows = generator.permutation(len(order.lengths))[: order.batches_per_epoch * size].tolist()
    window = WINDOW_BATCHES * size
    ordered = [
        row
        for start in range(0, len(rows), window)
        for row in sorted(rows[start : start + window], key=lambda row: order.lengths[row])
    ]
    return [tuple(ordered[start : start + size]) for start in range(0, len(ordered), size)]


def _fixed(order: BatchOrder) -> list[tuple[int, ...]]:
    """Cut the batches once for all epochs, as MLX-LM does; the same rows are left out every time."""
    rows = sorted(range(len(order.lengths)), key=lambda row: order.sort_keys[row])
    size = order.batch_size
    return [tuple(rows[start : start + size]) for start in range(0, len(rows) - size + 1, size)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """The tokenised rows of one data file."""

    tokens: Sequence[Sequence[int]]  # token ids of each row
    offsets: Sequence[int]  # first supervised token of each row
    sort_keys: tuple[int, ...]  # what MLX-LM sorts each row by

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.tokens)

    def padded(self, chosen: Sequence[int], max_seq_length: int) -> tuple[Table, Table]:
        """Return the chosen rows padded to one array, as the function `padded` does."""
        return padded([self.tokens[row] for row in chosen], [self.offsets[row] for row in chosen], max_seq_length)


def padded(rows: Sequence[Sequence[int]], offsets: Sequence[int], max_seq_length: int) -> tuple[Table, Table]:
    """Pad rows to one array as MLX-LM does.

    Args:
        rows: token ids of each row.
        offsets: first supervised token of each row.
        max_seq_length: tokens; longer rows are cut.

    Returns:
        tokens (rows, length) and spans (rows, 2): first and last supervised position, what MLX-LM calls lengths.
    """
    lengths = [min(len(row), max_seq_length) for row in rows]
    longest = 1 + PAD_TO * ((max(len(row) for row in rows) + PAD_TO - 1) // PAD_TO)
    tokens = np.zeros((len(rows), min(longest, max_seq_length)), np.int32)
    for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        tokens[place, :length] = row[:length]
    spans = np.array(list(zip(offsets, lengths, strict=True)), np.int32)
    return tokens, spans
