"""Facts about the data: rows, lengths, padding, and validation rows that are in the training set too."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.data.batches import BatchOrder, Rows, padded
from workers.data.dataset_facts import describe, duplicates, padding_share, supervised


def rows(tokens: Sequence[Sequence[int]], offset: int = 0) -> Rows:
    """Return tokenized rows."""
    return Rows(
        tokens=[np.array(row, np.int32) for row in tokens], offsets=[offset] * len(tokens), sort_keys=(2,) * len(tokens)
    )


def test_describe_counts_rows_and_tokens() -> None:
    facts = describe(rows([[1] * 4, [1] * 10, [1] * 40], offset=2), max_seq_length=20)
    assert facts == {
        "rows": 3,
        "tokens": 34,
        "supervised_tokens": 3 + 9 + 18,
        "truncated": 1,
        "truncated_tokens": 20,
        "shortest": 4,
        "median": 10.0,
        "p95": pytest.approx(37.0),
        "longest": 40,
    }
    assert describe(rows([]), max_seq_length=20) == {"rows": 0}


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(0, 30)), min_size=1, max_size=6), st.integers(2, 90))
def test_learned_tokens_equal_the_loss(shapes: list[tuple[int, int]], longest: int) -> None:
    tokens, offsets = [[1] * length for length, _ in shapes], [offset for _, offset in shapes]
    table, spans = padded(tokens, offsets, longest)
    counted = [  # mlx_lm/tuner/trainer.py, default_loss
        sum(first <= step <= last for step in range(1, table.shape[1])) for first, last in spans.tolist()
    ]
    assert supervised(dataclasses.replace(rows(tokens), offsets=offsets), longest) == counted


@pytest.mark.parametrize("mode", ["bucketed", "shuffled"])
def test_padding_is_that_of_the_batches(mode: str) -> None:
    chance = random.Random(1)  # noqa: S311 makes lengths, guards nothing
    lengths = tuple(chance.randint(1, 300) for _ in range(41))
    order = BatchOrder(lengths=lengths, sort_keys=(2,) * 41, batch_size=4, seed=3, mode=mode)  # type: ignore[arg-type]
    positions = tokens = 0
    for position in range(order.batches_per_epoch):
        batch = order.rows(position)
        table, spans = padded([[1] * lengths[row] for row in batch], [0] * 4, 200)
        positions += table.size
        tokens += int(spans[:, 1].sum())
    assert padding_share(order, 200) == pytest.approx(1 - tokens / positions)


def _row(seed: int, length: int = 60) -> list[int]:
    chance = random.Random(seed)  # noqa: S311 makes rows, guards nothing
    return [chance.randint(0, 30_000) for _ in range(length)]


PROMPT = _row(-1, 40)
"""The start of every row."""


def test_exact_and_near_duplicates_are_found() -> None:
    train = [PROMPT + _row(seed) for seed in range(200)] + [PROMPT + _row(3)]
    changed = list(train[7])
    changed[70] += 1
    valid = [train[5], changed, PROMPT + _row(999), PROMPT + _row(8)[:30] + _row(1000)[:30]]
    facts = duplicates(rows(train), rows(valid), measured=2)
    assert (facts["exact"], facts["near"], facts["inside"]) == (1, 1, 1)
    assert [(pair["row"], pair["train_row"]) for pair in facts["examples"]] == [(1, 6), (2, 8)]
    assert facts["examples"][0]["share"] == 1.0
    assert 0.8 <= facts["examples"][1]["share"] < 1.0


@pytest.mark.parametrize(("train", "valid"), [([[1, 2]], []), ([[1, 2], [3]], [[3], [], [1, 3]])])
def test_few_and_short_rows_are_compared(train: list[list[int]], valid: list[list[int]]) -> None:
    facts = duplicates(rows(train), rows(valid), measured=2)
    assert (facts["exact"], facts["near"]) == (len([row for row in valid if row in train]), 0)


@pytest.mark.timeout(60)  # comparing all pairs would take hours
def test_large_sets_are_searched_quickly() -> None:
    train = rows([PROMPT + _row(seed) for seed in range(5_000)])
    valid = rows([PROMPT + _row(seed) for seed in range(4_900, 5_500)])
    assert duplicates(train, valid, measured=60)["exact"] == 100
