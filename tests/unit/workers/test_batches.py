"""The order of the data: a function of seed, epoch and salt, and of nothing else."""

from __future__ import annotations

import dataclasses
import random
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.batches import PAD_TO, WINDOW_BATCHES, BatchOrder, padded

Mode = Literal["bucketed", "shuffled"]


def epoch(order: BatchOrder, number: int) -> list[tuple[int, ...]]:
    """The batches of an epoch, in order."""
    count = order.batches_per_epoch
    return [order.rows(position) for position in range(number * count, (number + 1) * count)]


def make(rows: int = 103, *, size: int = 4, seed: int = 0, salt: int = 0, mode: Mode = "bucketed") -> BatchOrder:
    chance = random.Random(rows)  # noqa: S311 makes lengths, guards nothing
    lengths = tuple(chance.randint(1, 300) for _ in range(rows))
    # MLX-LM sorts by the number of keys in a row, which is the same for all (field-notes.md)
    return BatchOrder(lengths=lengths, sort_keys=(2,) * rows, batch_size=size, seed=seed, salt=salt, mode=mode)


ORDERS = st.builds(
    make,
    st.integers(8, 120),
    size=st.integers(1, 8),
    seed=st.integers(0, 2**63 - 1),
    salt=st.integers(0, 99),
    mode=st.sampled_from(["bucketed", "shuffled"]),
)


@given(order=ORDERS, number=st.integers(0, 50))
def test_every_epoch_shows_each_row_at_most_once_in_full_batches(order: BatchOrder, number: int) -> None:
    batches = epoch(order, number)
    rows = [row for batch in batches for row in batch]
    assert {len(batch) for batch in batches} == {order.batch_size}
    assert len(rows) == len(set(rows)) == len(order.lengths) // order.batch_size * order.batch_size
    assert set(rows) <= set(range(len(order.lengths)))


@given(order=ORDERS, positions=st.lists(st.integers(0, 2000), min_size=1, max_size=12), chance=st.randoms())
def test_a_position_holds_the_same_rows_whatever_was_asked_before(
    order: BatchOrder, positions: list[int], chance: random.Random
) -> None:
    asked = {position: order.rows(position) for position in positions}
    again = dataclasses.replace(order)
    chance.shuffle(positions)
    assert {position: again.rows(position) for position in positions} == asked


@pytest.mark.parametrize("mode", ["bucketed", "shuffled"])
def test_seed_epoch_and_salt_each_change_the_order(mode: Mode) -> None:
    order = make(mode=mode)
    first = epoch(order, 0)
    assert epoch(order, 1) != first
    assert epoch(make(mode=mode, seed=1), 0) != first
    assert epoch(make(mode=mode, salt=1), 0) != first
    assert epoch(make(mode=mode), 0) == first


def test_a_run_that_began_with_an_older_lq_goes_on_with_the_same_rows() -> None:
    """If numpy ever draws otherwise, this says so before a night is lost: the order would need a version of its own."""
    bucketed, shuffled = make(13, seed=7), make(13, seed=7, mode="shuffled")
    assert [bucketed.rows(position) for position in range(6)] == [
        (12, 8, 7, 4),
        (3, 0, 1, 9),
        (6, 2, 10, 5),
        (12, 8, 7, 4),
        (6, 2, 10, 3),
        (0, 1, 11, 9),
    ]
    assert [shuffled.rows(position) for position in range(6)] == [
        (0, 1, 2, 3),
        (8, 9, 10, 11),
        (4, 5, 6, 7),
        (0, 1, 2, 3),
        (8, 9, 10, 11),
        (4, 5, 6, 7),
    ]


def test_bucketed_leaves_other_rows_out_in_each_epoch() -> None:
    order = make(103)
    left_out = [set(range(103)) - {row for batch in epoch(order, number) for row in batch} for number in range(4)]
    assert [len(rows) for rows in left_out] == [3, 3, 3, 3]
    assert len({frozenset(rows) for rows in left_out}) == 4


def test_bucketed_puts_rows_of_like_length_together_and_mixes_them_anew() -> None:
    order = make(103)
    first, second = epoch(order, 0), epoch(order, 1)
    spread = [max(order.lengths[row] for row in batch) - min(order.lengths[row] for row in batch) for batch in first]
    assert sum(spread) / len(spread) < 25  # of 300; at random it is about 180
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}


def test_bucketed_does_not_train_from_short_to_long() -> None:
    order = make(103)
    longest = [max(order.lengths[row] for row in batch) for batch in epoch(order, 0)]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


def test_bucketing_works_in_windows_so_that_epochs_still_mix_a_large_set() -> None:
    order = make(1000, size=2)
    window = [row for batch in epoch(order, 0) for row in batch]
    assert WINDOW_BATCHES * 2 < 1000
    groups = {frozenset(batch) for batch in epoch(order, 0)}
    again = {frozenset(batch) for batch in epoch(order, 1)}
    assert len(window) == 1000
    assert len(groups & again) < 50


def test_shuffled_cuts_consecutive_rows_once_for_all_epochs_as_mlx_lm_does() -> None:
    order = make(103, mode="shuffled")
    consecutive = {tuple(range(start, start + 4)) for start in range(0, 100, 4)}
    for number in range(3):
        assert set(epoch(order, number)) == consecutive


def test_shuffled_follows_mlx_lms_sort_where_rows_have_different_keys() -> None:
    keys = (3, 2, 2, 3, 2, 2)
    order = BatchOrder(lengths=(9,) * 6, sort_keys=keys, batch_size=3, seed=0, mode="shuffled")
    assert set(epoch(order, 0)) == {(1, 2, 4), (5, 0, 3)}


@pytest.mark.parametrize("mode", ["bucketed", "shuffled"])
def test_a_set_of_one_batch_is_one_batch_an_epoch(mode: Mode) -> None:
    order = make(4, size=4, mode=mode)
    assert order.batches_per_epoch == 1
    assert sorted(order.rows(0)) == sorted(order.rows(17)) == [0, 1, 2, 3]


def test_a_far_position_is_found_at_once() -> None:
    order = make(103)
    assert len(order.rows(10**12)) == 4


@given(
    rows=st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=90), min_size=1, max_size=5),
    limit=st.integers(2, 100),
)
def test_padding_keeps_every_token_that_fits(rows: list[list[int]], limit: int) -> None:
    tokens, spans = padded(rows, [0] * len(rows), limit)
    assert tokens.shape[0] == len(rows)
    assert tokens.shape[1] == limit or tokens.shape[1] % PAD_TO == 1
    assert tokens.shape[1] <= limit
    for place, row in enumerate(rows):
        cut = row[:limit]
        assert tokens[place, : len(cut)].tolist() == cut
        assert not tokens[place, len(cut) :].any()
        assert spans[place].tolist() == [0, len(cut)]
    assert tokens.dtype == spans.dtype == np.int32
