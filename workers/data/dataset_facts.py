"""What a data set is like, once it is tokenised: rows, lengths, padding, and rows it has twice. Numbers only; no mlx.

Near duplicates are sought by shingles: runs of SHINGLE tokens. Two rows are near each other where the share of common
ones among all their distinct shingles (Jaccard's index; Broder, On the resemblance and containment of documents, 1997)
is at least NEAR.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.model.run_plan import Stage
from workers.data.batches import BatchOrder, Rows, Tokens, padded_length

SHINGLE = 5
NEAR = 0.8
MOST_TOKENS = 20_000_000
"""Of the training set; beyond, near duplicates are not sought: a run should not wait for it."""

MOST_BATCHES = 2_000
"""Of the first epoch, over which padding is measured."""

MOST_OWNERS = 50
"""A shingle that more rows have, such as a part of the system prompt, leads to no row in particular."""

CANDIDATES = 3
"""Of the rows that share rare shingles, so many are compared whole."""

MOST_NAMED = 10

_Hashes = NDArray[np.uint64]


def dataset_facts(train: Rows, valid: Rows, test: Rows, order: BatchOrder, stage: Stage) -> dict[str, Any]:
    """Return everything the report says of a data set.

    Args:
        train: its training rows.
        valid: its validation rows.
        test: its test rows.
        order: in which the training rows are trained.
        stage: says where rows are cut.
    """
    longest = stage.max_seq_length
    files = {"train": train, "valid": valid, "test": test}
    return {
        "max_seq_length": longest,
        "padding_share": padding_share(order, longest),
        **{name: describe(rows, longest) for name, rows in files.items()},
        "learned": {name: supervised(rows, longest) for name, rows in files.items() if name != "train"},
        "also_trained": {name: duplicates(train, rows) for name, rows in files.items() if name != "train"},
    }


def targets(names: Iterable[str]) -> list[str]:
    """Return what is adapted in a layer, such as self_attn.q_proj, from the names of trained parameters."""
    inside = (name.partition("layers.")[2].partition(".")[2] for name in names)
    return sorted({name.rpartition(".")[0] for name in inside if name.rpartition(".")[2] in ("lora_a", "lora_b", "m")})


def describe(rows: Rows, max_seq_length: int) -> dict[str, Any]:
    """Return rows, tokens and lengths of one data file.

    Args:
        rows: the tokenised file.
        max_seq_length: tokens; longer rows are cut.
    """
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
    """Return the tokens of each row that are learned, as the loss counts them (MLX-LM's default_loss)."""
    spans = zip(rows.tokens, rows.offsets, strict=True)
    return [max(0, min(len(row), max_seq_length - 1) - max(offset, 1) + 1) for row, offset in spans]


def padding_share(order: BatchOrder, max_seq_length: int) -> float | None:
    """Return the share of positions of the first epoch's batches that hold no token.

    Args:
        order: of the run.
        max_seq_length: tokens; longer rows are cut.
    """
    held = positions = 0
    for place in range(min(order.batches_per_epoch, MOST_BATCHES)):
        lengths = [order.lengths[row] for row in order.rows(place)]
        held += sum(min(length, max_seq_length) for length in lengths)
        positions += padded_length(max(lengths), max_seq_length) * len(lengths)
    return 1 - held / positions if positions else None


def duplicates(train: Rows, other: Rows) -> dict[str, Any]:
    """Return what `other` (validation or test) has in common with the training set.

    Returns:
        `exact` and `near`, how many rows of `other` stand in the training set too, word for word or nearly
        (`near` is None where it was not sought); `inside`, rows of the training set that repeat an earlier one;
        `examples`, pairs of row numbers, from 1, with their resemblance.
    """
    first: dict[bytes, int] = {}
    for place, row in enumerate(train.tokens):
        first.setdefault(row.tobytes(), place)
    same = {place: first[row.tobytes()] for place, row in enumerate(other.tokens) if row.tobytes() in first}
    rest = [place for place in range(len(other)) if place not in same]
    near = _near(train.tokens, [other.tokens[place] for place in rest])
    found = [(place, train_place, 1.0) for place, train_place in same.items()]
    if near is not None:
        found += [(rest[place], train_place, share) for place, (train_place, share) in near.items()]
    named = sorted(found, key=lambda one: (-one[2], one[0]))[:MOST_NAMED]
    return {
        "exact": len(same),
        "near": None if near is None else len(near),
        "inside": len(train) - len(first),
        "examples": [{"row": place + 1, "train_row": at + 1, "share": round(share, 3)} for place, at, share in named],
    }


def _near(train: Sequence[Tokens], other: Sequence[Tokens]) -> dict[int, tuple[int, float]] | None:
    """Return for each row of `other` with a near one in `train` which that is, and how near; None where not sought."""
    if sum(len(row) for row in train) > MOST_TOKENS:
        return None
    sets = [_shingles(row) for row in other]
    hashes, owners = _rare(sets)
    best: dict[int, tuple[int, float]] = {}
    for place, row in enumerate(train):
        mine = _shingles(row)
        begins, ends = np.searchsorted(hashes, mine, "left"), np.searchsorted(hashes, mine, "right")
        met = ends > begins
        common: Counter[int] = Counter()
        for begin, end in zip(begins[met].tolist(), ends[met].tolist(), strict=True):
            common.update(owners[begin:end].tolist())
        for owner, _ in common.most_common(CANDIDATES):
            share = _resemblance(mine, sets[owner])
            if share >= NEAR and share > best.get(owner, (0, 0.0))[1]:
                best[owner] = (place, share)
    return best


def _rare(sets: Sequence[_Hashes]) -> tuple[_Hashes, NDArray[np.int64]]:
    """Return the shingles that few rows have, in ascending order, each with its row: what all have tells nothing."""
    if not sets:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    owners = np.repeat(np.arange(len(sets)), [len(one) for one in sets])
    every = np.concatenate(list(sets))
    order = np.argsort(every, kind="stable")
    every, owners = every[order], owners[order]
    _, place, count = np.unique(every, return_inverse=True, return_counts=True)
    few = count[place] <= MOST_OWNERS
    return every[few], owners[few]


def _resemblance(one: _Hashes, two: _Hashes) -> float:
    small, large = sorted((len(one), len(two)))
    if small < NEAR * large:
        return 0.0
    shared = len(np.intersect1d(one, two, assume_unique=True))
    return float(shared / (small + large - shared))


def _shingles(row: Tokens) -> _Hashes:
    """Return the distinct hashes of every run of SHINGLE tokens; of a shorter row the one of the whole."""
    tokens = np.asarray(row, dtype=np.uint64)
    size = min(SHINGLE, len(tokens))
    if not size:
        return np.empty(0, dtype=np.uint64)
    hashes = np.full(len(tokens) - size + 1, size, dtype=np.uint64)
    for place in range(size):
        # multiply, add, mix: SplitMix64's constants (Steele, Lea and Flood, 2014); wraps around on purpose
        hashes = (hashes ^ tokens[place : len(tokens) - size + 1 + place]) * np.uint64(0xBF58476D1CE4E5B9)
        hashes ^= hashes >> np.uint64(31)
    return np.unique(hashes)
