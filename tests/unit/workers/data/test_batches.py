"""The order of the data depends on seed, epoch and salt, and on nothing else."""

from __future__ import annotations

import dataclasses
import random
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.model.run_plan import RunPlan, Stage
from jobs.model.spec import JobSpec
from workers.data.batches import PAD_TO, WINDOW_BATCHES, BatchOrder, Rows, orders, padded

Mode = Literal["bucketed", "shuffled"]


def epoch(order: BatchOrder, number: int) -> list[tuple[int, ...]]:
    """Return the batches of an epoch, in order."""
    count = order.batches_per_epoch
    return [order.rows(position) for position in range(number * count, (number + 1) * count)]


def make(rows: int = 103, *, size: int = 4, seed: int = 0, salt: int = 0, mode: Mode = "bucketed") -> BatchOrder:
    chance = random.Random(rows)  # noqa: S311 makes lengths, guards nothing
    lengths = tuple(chance.randint(1, 300) for _ in range(rows))
    # MLX-LM sorts by the number of a row's keys, which is the same for all rows (CacheDataset.itemlen)
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
def test_epoch_has_full_batches_of_rows(order: BatchOrder, number: int) -> None:
    batches = epoch(order, number)
    rows = [row for batch in batches for row in batch]
    assert {len(batch) for batch in batches} == {order.batch_size}
    assert len(rows) == len(set(rows)) == len(order.lengths) // order.batch_size * order.batch_size
    assert set(rows) <= set(range(len(order.lengths)))


@given(order=ORDERS, positions=st.lists(st.integers(0, 2000), min_size=1, max_size=12), chance=st.randoms())
def test_position_alone_decides_the_rows(order: BatchOrder, positions: list[int], chance: random.Random) -> None:
    asked = {position: order.rows(position) for position in positions}
    again = dataclasses.replace(order)
    chance.shuffle(positions)
    assert {position: again.rows(position) for position in positions} == asked


@pytest.mark.parametrize("mode", ["bucketed", "shuffled"])
def test_seed_epoch_and_salt_change_order(mode: Mode) -> None:
    order = make(mode=mode)
    first = epoch(order, 0)
    assert epoch(order, 1) != first
    assert epoch(make(mode=mode, seed=1), 0) != first
    assert epoch(make(mode=mode, salt=1), 0) != first
    assert epoch(make(mode=mode), 0) == first


def test_order_stays_the_same_over_versions() -> None:
    """A run resumes after an upgrade only if numpy still draws this order; else the order needs a version."""
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


def test_bucketed_varies_the_rows_left_out() -> None:
    order = make(103)
    left_out = [set(range(103)) - {row for batch in epoch(order, number) for row in batch} for number in range(4)]
    assert [len(rows) for rows in left_out] == [3, 3, 3, 3]
    assert len({frozenset(rows) for rows in left_out}) == 4


def test_bucketed_groups_similar_lengths() -> None:
    order = make(103)
    first, second = epoch(order, 0), epoch(order, 1)
    spread = [max(order.lengths[row] for row in batch) - min(order.lengths[row] for row in batch) for batch in first]
    assert sum(spread) / len(spread) < 25  # of 300; at random it is about 180
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in second}


def test_bucketed_does_not_sort_the_batches() -> None:
    order = make(103)
    longest = [max(order.lengths[row] for row in batch) for batch in epoch(order, 0)]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


def test_bucketed_windows_mix_large_sets() -> None:
    order = make(1000, size=2)
    window = [row for batch in epoch(order, 0) for row in batch]
    assert WINDOW_BATCHES * 2 < 1000
    groups = {frozenset(batch) for batch in epoch(order, 0)}
    again = {frozenset(batch) for batch in epoch(order, 1)}
    assert len(window) == 1000
    assert len(groups & again) < 50


def test_shuffled_batches_stay_the_same() -> None:
    order = make(103, mode="shuffled")
    consecutive = {tuple(range(start, start + 4)) for start in range(0, 100, 4)}
    for number in range(3):
        assert set(epoch(order, number)) == consecutive


def test_shuffled_sorts_by_mlx_lm_keys() -> None:
    keys = (3, 2, 2, 3, 2, 2)
    order = BatchOrder(lengths=(9,) * 6, sort_keys=keys, batch_size=3, seed=0, mode="shuffled")
    assert set(epoch(order, 0)) == {(1, 2, 4), (5, 0, 3)}


@pytest.mark.parametrize("mode", ["bucketed", "shuffled"])
def test_set_of_one_batch_has_one_per_epoch(mode: Mode) -> None:
    order = make(4, size=4, mode=mode)
    assert order.batches_per_epoch == 1
    assert sorted(order.rows(0)) == sorted(order.rows(17)) == [0, 1, 2, 3]


def test_far_position_is_found_directly() -> None:
    order = make(103)
    assert len(order.rows(10**12)) == 4


@given(
    rows=st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=90), min_size=1, max_size=5),
    limit=st.integers(2, 100),
)
def test_padding_keeps_all_tokens_that_fit(rows: list[list[int]], limit: int) -> None:
    tokens, spans = padded(rows, [0] * len(rows), limit)
    assert tokens.shape[0] == len(rows)
    assert tokens.shape[1] == limit or tokens.shape[1] % PAD_TO == 1
    assert tokens.shape[1] <= limit
    for index, row in enumerate(rows):
        cut = row[:limit]
        assert tokens[index, : len(cut)].tolist() == cut
        assert not tokens[index, len(cut) :].any()
        assert spans[index].tolist() == [0, len(cut)]
    assert tokens.dtype == spans.dtype == np.int32


# --- after a rollback ---


def run_plan_of(*stages: Stage) -> RunPlan:
    requested = JobSpec(batch_size=4)
    return RunPlan(stages=(*RunPlan.requested(requested).stages, *stages))


def rollback_to(position: int, *, salt: int = 1, **changes: Any) -> Stage:
    """Return a stage that starts at a position of the run."""
    first = RunPlan.requested(JobSpec(batch_size=4)).stages[0]
    return first.continued(position * 4, because="a test", salt=salt, **changes)


def all_rows(_: Stage) -> None:
    """Return None: every row may be trained."""


@given(order=ORDERS, share=st.floats(0, 3), salt=st.integers(100, 200), cut=st.integers(0, 5))
def test_rollback_trains_the_rest_of_epoch(order: BatchOrder, share: float, salt: int, cut: int) -> None:
    position = int(share * order.batches_per_epoch)
    number, index = divmod(position, order.batches_per_epoch)
    trained = {row for batch in epoch(order, number)[:index] for row in batch}
    left_out = set(sorted(set(range(len(order.lengths))) - trained)[:cut])
    after = order.taken_over(position, salt=salt, used=None, left_out=left_out)
    rest = (len(order.lengths) - len(trained) - len(left_out)) // order.batch_size
    drawn = [row for batch in range(position, position + rest) for row in after.rows(batch)]
    assert len(drawn) == len(set(drawn))
    assert not set(drawn) & (trained | left_out)
    later = range(position + rest, position + rest + order.batches_per_epoch)
    rows = [row for batch in later for row in after.rows(batch)]
    assert len(rows) == len(set(rows)) == order.batches_per_epoch * order.batch_size, "then whole epochs again"


def test_skipped_rows_wait_for_next_epoch() -> None:
    first = make(400)
    by_stage = orders(run_plan_of(rollback_to(30, skipped=(35, 45))), first, all_rows)
    bad = {row for position in range(35, 45) for row in first.rows(position)}
    epoch_end = 30 + (400 - 30 * 4 - 40) // 4
    assert not bad & {row for position in range(30, epoch_end) for row in by_stage[1].rows(position)}
    assert bad <= {row for position in range(epoch_end, epoch_end + 100) for row in by_stage[1].rows(position)}


def test_second_rollback_skips_both_windows() -> None:
    first = make(400)
    run_plan = run_plan_of(rollback_to(30, skipped=(35, 45)), rollback_to(40, salt=2, skipped=(42, 46)))
    first_order, second, third = orders(run_plan, first, all_rows)
    bad = {row for position in range(35, 45) for row in first_order.rows(position)}
    bad |= {row for position in range(42, 46) for row in second.rows(position)}
    trained = {row for position in range(30) for row in first_order.rows(position)}
    trained |= {row for position in range(30, 40) for row in second.rows(position)}
    rest = (400 - len(bad | trained)) // 4
    drawn = {row for position in range(40, 40 + rest) for row in third.rows(position)}
    assert not drawn & (bad | trained)


def test_stage_of_same_data_keeps_the_order() -> None:
    by_stage = orders(run_plan_of(rollback_to(30, salt=0, batch_size=2)), make(400), all_rows)
    assert by_stage[1] is by_stage[0]


def test_quarantined_rows_never_come_back() -> None:
    run_plan = run_plan_of(rollback_to(30, quarantined=(7, 8)))

    def usable(stage: Stage) -> tuple[int, ...] | None:
        return tuple(row for row in range(100) if row not in stage.quarantined) if stage.quarantined else None

    after = orders(run_plan, make(100), usable)[1]
    assert not {7, 8} & {row for position in range(30, 200) for row in after.rows(position)}


def test_unsupervised_rows_are_left_out() -> None:
    tokens = [np.arange(1, length + 1, dtype=np.int32) for length in (3, 1, 3, 4, 2)]
    rows = Rows(tokens=tokens, offsets=[0, 0, 3, 2, 1], sort_keys=(2,) * 5)
    assert rows.supervised(10) == (0, 3, 4)
    assert rows.supervised(2) == (0, 4), "two tokens hold nothing of the answer of row 3"
