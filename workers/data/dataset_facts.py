"""Facts about tokenized data sets: rows, lengths, padding and duplicates. Numbers only; no mlx.

Near duplicates share shingles, which are runs of SHINGLE tokens. Two rows are near duplicates if the share of common
ones among all their distinct shingles (Jaccard index; Broder, On the resemblance and containment of documents, 1997)
is at least NEAR.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.model.run_plan import Stage
from workers.data.batches import BatchOrder, Rows, Tokens, padded_length

SHINGLE = 5
NEAR = 0.8
MAX_TOKENS = 20_000_000
"""Tokens of a training set; in larger ones lq does not look for near duplicates, which would delay the run."""

MAX_BATCHES = 2_000
"""Batches of the first epoch over which padding is measured."""

MAX_OWNERS = 50
"""Rows that have a shingle; a more common one, such as a part of the system prompt, identifies no row."""

CANDIDATES = 3
"""Rows to compare whole, of those that share rare shingles."""

MAX_EXAMPLES = 10

_Hashes = NDArray[np.uint64]


def dataset_facts(
    train: Rows, others: Mapping[str, Rows], measured: Mapping[str, int], order: BatchOrder, stage: Stage
) -> dict[str, Any]:
    """Return the facts that the report shows; the stage's `max_seq_length` cuts rows.

    Args:
        others: the rows of validation and test that have a token to learn.
        measured: how many of them, from the first, are measured: `val_batches` and `test_batches` limit them.
    """
    longest = stage.max_seq_length
    return {
        "max_seq_length": longest,
        "padding_share": padding_share(order, longest),
        "train": describe(train, longest),
        **{name: describe(rows, longest) | {"measured": measured[name]} for name, rows in others.items()},
        "learned": {name: weights(rows, longest) for name, rows in others.items()},
        "also_trained": {name: duplicates(train, rows, measured=measured[name]) for name, rows in others.items()},
    }


def targets(names: Iterable[str]) -> list[str]:
    """Return the adapted modules of a layer, such as self_attn.q_proj, from the names of trained parameters."""
    inside = (name.partition("layers.")[2].partition(".")[2] for name in names)
    return sorted({name.rpartition(".")[0] for name in inside if name.rpartition(".")[2] in ("lora_a", "lora_b", "m")})


def describe(rows: Rows, max_seq_length: int) -> dict[str, Any]:
    """Return the number of rows and tokens, and the lengths, of a data file whose rows are cut to `max_seq_length`."""
    if not len(rows):
        return {"rows": 0}
    lengths = np.array([len(row) for row in rows.tokens])
    cut = np.minimum(lengths, max_seq_length)
    return {
        "rows": len(rows),
        "tokens": int(cut.sum()),
        "supervised_tokens": sum(supervised(rows, max_seq_length)),
        "truncated": int((lengths > max_seq_length).sum()),
        "truncated_tokens": int((lengths - cut).sum()),
        "shortest": int(lengths.min()),
        "median": float(np.median(lengths)),
        "p95": float(np.percentile(lengths, 95)),
        "longest": int(lengths.max()),
    }


def supervised(rows: Rows, max_seq_length: int) -> list[int]:
    """Return the number of learned tokens of each sequence, as MLX-LM's default_loss counts them.

    That includes one token of padding after a sequence that is not cut; preferences do not.
    """
    last = max_seq_length - 1
    ends = [min(len(row) - rows.is_preference, last) for row in rows.tokens]
    return [max(0, end - max(offset, 1) + 1) for end, offset in zip(ends, rows.offsets, strict=True)]


def weights(rows: Rows, max_seq_length: int) -> list[int]:
    """Return the weight of each row in the mean loss: its learned tokens; of preferences 1, or 0 if it is left out."""
    if not rows.is_preference:
        return supervised(rows, max_seq_length)
    learned = set(rows.supervised(max_seq_length))
    return [int(row in learned) for row in range(len(rows))]


def padding_share(order: BatchOrder, max_seq_length: int) -> float | None:
    """Return the share of padding in the first epoch's batches."""
    tokens = padded = 0
    for position in range(min(order.batches_per_epoch, MAX_BATCHES)):
        lengths = [order.lengths[row] for row in order.rows(position)]
        tokens += sum(min(length, max_seq_length) for length in lengths)
        padded += padded_length(max(lengths), max_seq_length) * len(lengths)
    return 1 - tokens / padded if padded else None


def duplicates(train: Rows, other: Rows, *, measured: int) -> dict[str, Any]:
    """Return the rows that `other` (validation or test; the first rows are measured) shares with training.

    Returns:
        `exact` and `near`: the number of rows of `other` that are in the training set too, or nearly (`near` is None
        if lq did not look for them). `inside`: rows of the training set that repeat an earlier one. `examples`: pairs
        of row numbers, from 1, with their resemblance.
    """
    trained, others = _whole(train), _whole(other)
    first: dict[bytes, int] = {}
    for index, row in enumerate(trained):
        first.setdefault(row.tobytes(), index)
    same = {index: first[row.tobytes()] for index, row in enumerate(others) if row.tobytes() in first}
    rest = [index for index in range(len(other)) if index not in same]
    near = _near(trained, [others[index] for index in rest])
    pairs = [(index, train_index, 1.0) for index, train_index in same.items()]
    if near is not None:
        pairs += [(rest[index], train_index, share) for index, (train_index, share) in near.items()]
    examples = sorted(pairs, key=lambda pair: (-pair[2], pair[0]))[:MAX_EXAMPLES]
    return {
        "exact": len(same),
        "near": None if near is None else len(near),
        "measured": sum(index < measured for index in same),
        "inside": len(train) - len(first),
        "examples": [
            {"row": other.number(index), "train_row": train_index + 1, "share": round(share, 3)}
            for index, train_index, share in examples
        ],
    }


def _whole(rows: Rows) -> Sequence[Tokens]:
    """Return the tokens of each row: of both answers to a prompt, and without the mismatched answer of a label."""
    starts = range(0, len(rows.tokens), rows.width)
    if rows.width == 1 or rows.labels:
        return [rows.tokens[start] for start in starts]
    return [np.concatenate(rows.tokens[start : start + rows.width]) for start in starts]


def _near(train: Sequence[Tokens], other: Sequence[Tokens]) -> dict[int, tuple[int, float]] | None:
    """Return the nearest training row and its resemblance by row of `other`; None if the training set is too large."""
    if sum(len(row) for row in train) > MAX_TOKENS:
        return None
    sets = [_shingles(row) for row in other]
    hashes, owners = _rare(sets)
    best: dict[int, tuple[int, float]] = {}
    for index, row in enumerate(train):
        shingles = _shingles(row)
        begins, ends = np.searchsorted(hashes, shingles, "left"), np.searchsorted(hashes, shingles, "right")
        shared = ends > begins
        common: Counter[int] = Counter()
        for begin, end in zip(begins[shared].tolist(), ends[shared].tolist(), strict=True):
            common.update(owners[begin:end].tolist())
        for owner, _ in common.most_common(CANDIDATES):
            share = _resemblance(shingles, sets[owner])
            if share >= NEAR and share > best.get(owner, (0, 0.0))[1]:
                best[owner] = (index, share)
    return best


def _rare(sets: Sequence[_Hashes]) -> tuple[_Hashes, NDArray[np.int64]]:
    """Return the shingles that few rows have, in ascending order, and the row of each."""
    if not sets:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    owners = np.repeat(np.arange(len(sets)), [len(shingles) for shingles in sets])
    every = np.concatenate(list(sets))
    order = np.argsort(every, kind="stable")
    every, owners = every[order], owners[order]
    _, index, count = np.unique(every, return_inverse=True, return_counts=True)
    few = count[index] <= MAX_OWNERS
    return every[few], owners[few]


def _resemblance(left: _Hashes, right: _Hashes) -> float:
    small, large = sorted((len(left), len(right)))
    if small < NEAR * large:
        return 0.0
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return float(shared / (small + large - shared))


def _shingles(row: Tokens) -> _Hashes:
    """Return the distinct hashes of every run of SHINGLE tokens; for a shorter row, the hash of the whole row."""
    tokens = np.asarray(row, dtype=np.uint64)
    size = min(SHINGLE, len(tokens))
    if not size:
        return np.empty(0, dtype=np.uint64)
    hashes = np.full(len(tokens) - size + 1, size, dtype=np.uint64)
    for index in range(size):
        # multiply, add, mix with the constants of SplitMix64 (Steele, Lea and Flood, 2014); wraps around on purpose
        hashes = (hashes ^ tokens[index : len(tokens) - size + 1 + index]) * np.uint64(0xBF58476D1CE4E5B9)
        hashes ^= hashes >> np.uint64(31)
    return np.unique(hashes)
