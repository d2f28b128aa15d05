"""Which rows make which batch: a pure function of seed, epoch and salt. No mlx, no files.

Batch k of a run lies in epoch k // batches_per_epoch, and only that epoch's order is drawn, so every position is found
directly. After a rollback another order applies from the rollback point on, and later positions are found the same way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from jobs.model.run_plan import RunPlan, Stage

Table = np.ndarray[tuple[int, int], np.dtype[np.int32]]
"""Integers in rows and columns."""

Tokens = np.ndarray[tuple[int], np.dtype[np.int32]]
"""The token ids of a row: four bytes each, where a list of Python integers takes up to 36."""

WINDOW_BATCHES = 50
"""Bucketing sorts by length within windows of this many batches, so that every epoch still mixes rows."""

PAD_TO = 32
"""MLX-LM pads to a multiple of this plus one (mlx_lm/tuner/trainer.py, iterate_batches)."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class BatchOrder:
    """The order of a part of the run. Compared by identity, so that the cache of epochs does not compare lengths."""

    lengths: tuple[int, ...]  # tokens of each row
    sort_keys: tuple[int, ...]  # MLX-LM sorts by these before it cuts batches (`shuffled`)
    batch_size: int
    seed: int
    salt: int = 0
    mode: Literal["bucketed", "shuffled"] = "bucketed"
    used: tuple[int, ...] | None = None  # the rows to draw from, ascending; None for all
    first: int = 0  # the position from which this order applies
    epoch: int = 0  # the epoch of that position
    opening: tuple[int, ...] | None = None  # the rows left of that epoch; None for a whole epoch

    def __post_init__(self) -> None:
        """Check what the caller must have checked."""
        assert len(self.pool) >= self.batch_size > 0

    @cached_property
    def pool(self) -> tuple[int, ...]:
        """The rows of a whole epoch."""
        return tuple(range(len(self.lengths))) if self.used is None else self.used

    @property
    def batches_per_epoch(self) -> int:
        """Batches in an epoch. Rows that do not fill a batch are left out; if bucketed, other ones in each epoch."""
        return len(self.pool) // self.batch_size

    def rows(self, position: int) -> tuple[int, ...]:
        """Return the row numbers of the batch at `position` of the run, from 0; not before `first`."""
        epoch, index = self._locate(position)
        return _epoch_order(self, epoch)[index]

    def _locate(self, position: int) -> tuple[int, int]:
        """Return the epoch of a position, and its index among the batches that this order draws for the epoch."""
        index = position - self.first
        opening = 0 if self.opening is None else len(self.opening) // self.batch_size
        if index < opening:
            return self.epoch, index
        later, index = divmod(index - opening, self.batches_per_epoch)
        return self.epoch + (self.opening is not None) + later, index

    def rows_of(self, epoch: int) -> tuple[int, ...]:
        """Return the rows from which this order draws an epoch's batches."""
        return self.opening if self.opening is not None and epoch == self.epoch else self.pool

    def taken_over(
        self, position: int, *, salt: int, used: tuple[int, ...] | None, left_out: Collection[int]
    ) -> BatchOrder:
        """Return an order that applies from `position` on, and draws the rest of the epoch without `left_out` again."""
        epoch, index = self._locate(position)
        trained = {row for batch in _epoch_order(self, epoch)[:index] for row in batch}
        usable = None if used is None else set(used)
        opening = tuple(
            row
            for row in self.rows_of(epoch)
            if row not in trained and row not in left_out and (usable is None or row in usable)
        )
        return dataclasses.replace(self, salt=salt, used=used, first=position, epoch=epoch, opening=opening)


def orders(run_plan: RunPlan, first: BatchOrder, usable: Callable[[Stage], tuple[int, ...] | None]) -> list[BatchOrder]:
    """Return the order of each stage of a run plan.

    A stage that changes nothing about the data keeps the order before it. Another one takes over where it starts and
    draws the rest of the epoch again. `usable` returns the rows to train on a stage, ascending; None for all.
    """
    by_stage = [dataclasses.replace(first, used=usable(run_plan.stages[0]))]
    for index, stage in enumerate(run_plan.stages[1:], start=1):
        before = RunPlan(stages=run_plan.stages[:index])
        position = run_plan.iteration_of(stage.first_example)
        old = by_stage[before.index_at(position)]
        rows = usable(stage)
        if stage.salt == old.salt and rows == old.used:
            by_stage.append(old)
            continue
        left_out: set[int] = set()
        for skipped in range(*(stage.skipped or (0, 0))):
            left_out.update(by_stage[before.index_at(skipped)].rows(skipped))
        by_stage.append(old.taken_over(position, salt=stage.salt, used=rows, left_out=left_out))
    return by_stage


@lru_cache(maxsize=4)
def _epoch_order(order: BatchOrder, epoch: int) -> tuple[tuple[int, ...], ...]:
    generator = np.random.default_rng([order.seed, epoch, order.salt])
    rows = order.rows_of(epoch)
    batches = _bucketed(order, rows, generator) if order.mode == "bucketed" else _fixed(order, rows)
    return tuple(batches[index] for index in generator.permutation(len(batches)))


def _bucketed(order: BatchOrder, rows: Sequence[int], generator: np.random.Generator) -> list[tuple[int, ...]]:
    """Shuffle the rows, leave out the remainder, sort by length within windows, cut."""
    size = order.batch_size
    drawn = [rows[index] for index in generator.permutation(len(rows))[: len(rows) // size * size].tolist()]
    window = WINDOW_BATCHES * size
    ordered = [
        row
        for start in range(0, len(drawn), window)
        for row in sorted(drawn[start : start + window], key=lambda row: order.lengths[row])
    ]
    return [tuple(ordered[start : start + size]) for start in range(0, len(ordered), size)]


def _fixed(order: BatchOrder, rows: Sequence[int]) -> list[tuple[int, ...]]:
    """Cut the batches as MLX-LM does: the same in all whole epochs, and always the same rows left out."""
    ordered = sorted(rows, key=lambda row: order.sort_keys[row])
    size = order.batch_size
    return [tuple(ordered[start : start + size]) for start in range(0, len(ordered) - size + 1, size)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """The tokenized rows of a data file. A row has `width` sequences: one, or the two answers of a preference."""

    tokens: Sequence[Tokens]  # token ids of each sequence, row after row
    offsets: Sequence[int]  # first supervised token of each sequence
    sort_keys: tuple[int, ...]  # of each row; MLX-LM sorts the rows by these
    width: int = 1
    labels: tuple[bool, ...] = ()  # whether the answer of a row is desirable; empty without labels
    reference: NDArray[np.float32] | None = None  # log-probability of each sequence's answer; None if not needed
    numbers: tuple[int, ...] | None = None  # of each row in its file, from 1; None if it has every row of the file

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.tokens) // self.width

    @property
    def is_preference(self) -> bool:
        """Whether the rows are those of a preference objective, whose loss is a mean over rows."""
        return self.width > 1 or bool(self.labels)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """The tokens of the longest sequence of each row."""
        lengths = [len(sequence) for sequence in self.tokens]
        return tuple(max(lengths[start : start + self.width]) for start in range(0, len(lengths), self.width))

    def supervised(self, max_seq_length: int) -> tuple[int, ...]:
        """Return the rows with a token to learn in each sequence that is cut to this length; others would give 0/0."""
        learned = [
            max(1, offset) < min(len(tokens), max_seq_length)  # the first token is not predicted from anything
            for offset, tokens in zip(self.offsets, self.tokens, strict=True)
        ]
        return tuple(row for row in range(len(self)) if all(learned[row * self.width : (row + 1) * self.width]))

    def sequences(self, chosen: Sequence[int]) -> list[int]:
        """Return the indices of the sequences of the chosen rows: the first of each row, then the second of each."""
        return [row * self.width + index for index in range(self.width) for row in chosen]

    def only(self, chosen: Sequence[int]) -> Rows:
        """Return these rows alone."""
        if len(chosen) == len(self):
            return self
        sequences = [row * self.width + index for row in chosen for index in range(self.width)]
        return dataclasses.replace(
            self,
            tokens=[self.tokens[sequence] for sequence in sequences],
            offsets=[self.offsets[sequence] for sequence in sequences],
            sort_keys=tuple(self.sort_keys[row] for row in chosen),
            labels=tuple(self.labels[row] for row in chosen) if self.labels else (),
            reference=None if self.reference is None else self.reference[sequences],
            numbers=tuple(self.number(row) for row in chosen),
        )

    def number(self, row: int) -> int:
        """Return the number of a row in its file, from 1."""
        return row + 1 if self.numbers is None else self.numbers[row]

    def padded(self, chosen: Sequence[int], max_seq_length: int) -> tuple[Table, Table]:
        """Return the sequences of the chosen rows padded to one array; see the function `padded`."""
        rows = self.sequences(chosen)
        return padded([self.tokens[row] for row in rows], [self.offsets[row] for row in rows], max_seq_length)


def padded_length(longest: int, max_seq_length: int) -> int:
    """Return the length to which MLX-LM pads a batch whose longest row has `longest` tokens."""
    return min(1 + PAD_TO * ((longest + PAD_TO - 1) // PAD_TO), max_seq_length)


def padded(rows: Sequence[Tokens | Sequence[int]], offsets: Sequence[int], max_seq_length: int) -> tuple[Table, Table]:
    """Pad rows to one array as MLX-LM does.

    Args:
        rows: token ids of each row.
        offsets: first supervised token of each row.
        max_seq_length: tokens; longer rows are cut.

    Returns:
        Tokens (rows, length) and spans (rows, 2): first and last supervised position, which MLX-LM calls lengths.
    """
    lengths = [min(len(row), max_seq_length) for row in rows]
    tokens = np.zeros((len(rows), padded_length(max(len(row) for row in rows), max_seq_length)), np.int32)
    for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        tokens[index, :length] = row[:length]
    spans = np.array(list(zip(offsets, lengths, strict=True)), np.int32)
    return tokens, spans


def learned_tokens(spans: Table, length: int) -> int:
    """Return the number of tokens of a batch that MLX-LM's loss counts.

    Args:
        spans: first and last supervised position of each row, (rows, 2).
        length: tokens of a padded row; the first is not predicted from anything.
    """
    first, last = np.maximum(spans[:, 0], 1), np.minimum(spans[:, 1], length - 1)
    return int(np.maximum(last - first + 1, 0).sum())
