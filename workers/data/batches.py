"""Which rows make which batch: a pure function of (seed, epoch, salt). No mlx, no files.

Batch k of a run lies in epoch k // batches_per_epoch; only that epoch's order is drawn, so any position is found
without walking there. That is half of an exact resume; the other half is in checkpoints. After a rollback another
order takes over where the run went back to, and every position after it is found the same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np

from jobs.model.run_plan import RunPlan, Stage

Table = np.ndarray[tuple[int, int], np.dtype[np.int32]]
"""Whole numbers in rows and columns."""

Tokens = np.ndarray[tuple[int], np.dtype[np.int32]]
"""The token ids of a row: four bytes each, where a list of Python's own numbers takes up to thirty-six."""

WINDOW_BATCHES = 50
"""Bucketing sorts by length inside windows of this many batches, so that every epoch still mixes rows."""

PAD_TO = 32
"""MLX-LM pads to one more than a multiple of this (mlx_lm/tuner/trainer.py, iterate_batches)."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BatchOrder:
    """The order of a stretch of the run. Compared by identity: looking up a drawn epoch must not read every length."""

    lengths: tuple[int, ...]  # tokens of each row
    sort_keys: tuple[int, ...]  # what MLX-LM sorts by before it cuts batches (`shuffled`)
    batch_size: int
    seed: int
    salt: int = 0
    mode: Literal["bucketed", "shuffled"] = "bucketed"
    used: tuple[int, ...] | None = None  # rows it draws from, ascending; None for all
    first: int = 0  # position of the run at which it takes over
    epoch: int = 0  # the epoch it takes over in
    opening: tuple[int, ...] | None = None  # rows that are left of that epoch; None for a whole one

    def __post_init__(self) -> None:
        """Check what only a programmer can get wrong; too little data was refused long before."""
        assert len(self.pool) >= self.batch_size > 0

    @cached_property
    def pool(self) -> tuple[int, ...]:
        """The rows of a whole epoch."""
        return tuple(range(len(self.lengths))) if self.used is None else self.used

    @property
    def batches_per_epoch(self) -> int:
        """Batches in an epoch; the rows that do not fill one are left out, other ones in each epoch where bucketed."""
        return len(self.pool) // self.batch_size

    def rows(self, position: int) -> tuple[int, ...]:
        """Return the row numbers of the batch at `position` (from 0) of the run; not before `first`."""
        epoch, place = self._place(position)
        return _epoch_order(self, epoch)[place]

    def _place(self, position: int) -> tuple[int, int]:
        """Return the epoch a position lies in, and its place among the batches this order draws for that epoch."""
        place = position - self.first
        opening = self._opening_batches
        if place < opening:
            return self.epoch, place
        epoch = self.epoch + (self.opening is not None)
        later, place = divmod(place - opening, self.batches_per_epoch)
        return epoch + later, place

    @property
    def _opening_batches(self) -> int:
        return 0 if self.opening is None else len(self.opening) // self.batch_size

    def rows_of(self, epoch: int) -> tuple[int, ...]:
        """Return the rows this order draws an epoch's batches from."""
        return self.opening if self.opening is not None and epoch == self.epoch else self.pool

    def taken_over(
        self, position: int, *, salt: int, used: tuple[int, ...] | None, left_out: Collection[int]
    ) -> BatchOrder:
        """Return the order that takes over here: what is left of the epoch is drawn anew, and every later epoch.

        Args:
            position: of the run, from 0.
            salt: changes what is drawn.
            used: rows it draws from; None for all.
            left_out: rows that the rest of this epoch does without.
        """
        epoch, place = self._place(position)
        seen = {row for batch in _epoch_order(self, epoch)[:place] for row in batch}
        usable = None if used is None else set(used)
        opening = tuple(
            row
            for row in self.rows_of(epoch)
            if row not in seen and row not in left_out and (usable is None or row in usable)
        )
        return dataclasses.replace(self, salt=salt, used=used, first=position, epoch=epoch, opening=opening)


def orders(run_plan: RunPlan, first: BatchOrder, usable: Callable[[Stage], tuple[int, ...] | None]) -> list[BatchOrder]:
    """Return the order that holds on each stage of a run plan.

    A stage that changes nothing about the data goes on with the order before it. One that does takes over where it
    begins: what the stages decided before it would have trained next is drawn anew.

    Args:
        run_plan: the stages.
        first: the order of the first stage.
        usable: the rows that may be trained on a stage, ascending; None for all.
    """
    found = [dataclasses.replace(first, used=usable(run_plan.stages[0]))]
    for index, stage in enumerate(run_plan.stages[1:], start=1):
        before = RunPlan(stages=run_plan.stages[:index])
        position = run_plan.iteration_of(stage.first_example)
        old = found[before.index_at(position)]
        rows = usable(stage)
        if stage.salt == old.salt and rows == old.used:
            found.append(old)
            continue
        left_out: set[int] = set()
        for skipped in range(*(stage.skipped or (0, 0))):
            left_out.update(found[before.index_at(skipped)].rows(skipped))
        found.append(old.taken_over(position, salt=stage.salt, used=rows, left_out=left_out))
    return found


@lru_cache(maxsize=4)
def _epoch_order(order: BatchOrder, epoch: int) -> tuple[tuple[int, ...], ...]:
    generator = np.random.default_rng([order.seed, epoch, order.salt])
    rows = order.rows_of(epoch)
    batches = _bucketed(order, rows, generator) if order.mode == "bucketed" else _fixed(order, rows)
    return tuple(batches[place] for place in generator.permutation(len(batches)))


def _bucketed(order: BatchOrder, rows: Sequence[int], generator: np.random.Generator) -> list[tuple[int, ...]]:
    """Shuffle the rows, leave out the remainder, sort by length inside windows, cut."""
    size = order.batch_size
    drawn = [rows[place] for place in generator.permutation(len(rows))[: len(rows) // size * size].tolist()]
    window = WINDOW_BATCHES * size
    ordered = [
        row
        for start in range(0, len(drawn), window)
        for row in sorted(drawn[start : start + window], key=lambda row: order.lengths[row])
    ]
    return [tuple(ordered[start : start + size]) for start in range(0, len(ordered), size)]


def _fixed(order: BatchOrder, rows: Sequence[int]) -> list[tuple[int, ...]]:
    """Cut the batches as MLX-LM does, the same for all whole epochs; the same rows are left out every time."""
    ordered = sorted(rows, key=lambda row: order.sort_keys[row])
    size = order.batch_size
    return [tuple(ordered[start : start + size]) for start in range(0, len(ordered) - size + 1, size)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """The tokenised rows of one data file."""

    tokens: Sequence[Tokens]  # token ids of each row
    offsets: Sequence[int]  # first supervised token of each row
    sort_keys: tuple[int, ...]  # what MLX-LM sorts each row by

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.tokens)

    def supervised(self, max_seq_length: int) -> tuple[int, ...]:
        """Return the rows that have a token to learn once they are cut; the others would give a loss of 0/0.

        Args:
            max_seq_length: tokens; longer rows are cut.
        """
        spans = zip(self.offsets, self.tokens, strict=True)
        return tuple(
            row
            for row, (offset, tokens) in enumerate(spans)
            if max(1, offset) < min(len(tokens), max_seq_length)  # the first token has nothing before it to learn from
        )

    def padded(self, chosen: Sequence[int], max_seq_length: int) -> tuple[Table, Table]:
        """Return the chosen rows padded to one array, as the function `padded` does."""
        return padded([self.tokens[row] for row in chosen], [self.offsets[row] for row in chosen], max_seq_length)


def padded_length(longest: int, max_seq_length: int) -> int:
    """Return the length that MLX-LM pads a batch to.

    Args:
        longest: tokens of its longest row.
        max_seq_length: tokens; longer rows are cut.
    """
    return min(1 + PAD_TO * ((longest + PAD_TO - 1) // PAD_TO), max_seq_length)


def padded(rows: Sequence[Tokens | Sequence[int]], offsets: Sequence[int], max_seq_length: int) -> tuple[Table, Table]:
    """Pad rows to one array as MLX-LM does.

    Args:
        rows: token ids of each row.
        offsets: first supervised token of each row.
        max_seq_length: tokens; longer rows are cut.

    Returns:
        tokens (rows, length) and spans (rows, 2): first and last supervised position, what MLX-LM calls lengths.
    """
    lengths = [min(len(row), max_seq_length) for row in rows]
    tokens = np.zeros((len(rows), padded_length(max(len(row) for row in rows), max_seq_length)), np.int32)
    for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        tokens[place, :length] = row[:length]
    spans = np.array(list(zip(offsets, lengths, strict=True)), np.int32)
    return tokens, spans


def learned_tokens(spans: Table, length: int) -> int:
    """Return how many tokens of a batch MLX-LM's loss counts.

    Args:
        spans: first and last supervised position of each row, (rows, 2).
        length: tokens a row is padded to; the first has nothing before it to learn from.
    """
    first, last = np.maximum(spans[:, 0], 1), np.minimum(spans[:, 1], length - 1)
    return int(np.maximum(last - first + 1, 0).sum())
