"""The peak memory of a run: the formula, and what corrects it."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.estimates.estimate import PROGRAM_BYTES, Source
from jobs.estimates.memory import (
    FORMULA_RANGE,
    MANY,
    ModelShape,
    ObservedPeak,
    TrainingShape,
    estimate_memory,
    parts_of,
    verdict,
)

GB = 1_000_000_000

QWEN3_06B = ModelShape(
    hidden=1024,
    layers=28,
    feed_forward=3072,
    queries=2048,
    keys=1024,
    heads=16,
    vocabulary=151_936,
    itemsize=2,
    weights_bytes=1_192_000_000,
)
LORA = TrainingShape(
    fine_tune_type="lora",
    trained_layers=16,
    rank=8,
    dropout=False,
    trained_bytes=11_000_000,
    optimizer_bytes=22_000_000,
    renewed_bytes=22_000_000,
    rows=4,
    tokens=2048,
    checkpointing=False,
)

SHAPES = st.builds(
    ModelShape,
    hidden=st.integers(64, 8192),
    layers=st.integers(1, 80),
    feed_forward=st.integers(64, 30_000),
    queries=st.integers(64, 8192),
    keys=st.integers(64, 8192),
    heads=st.integers(1, 64),
    vocabulary=st.integers(100, 260_000),
    itemsize=st.sampled_from([2, 4]),
    weights_bytes=st.integers(0, 100 * GB),
)
WORKS = st.builds(
    TrainingShape,
    fine_tune_type=st.sampled_from(["lora", "dora", "full"]),
    trained_layers=st.integers(1, 80),
    rank=st.integers(1, 256),
    dropout=st.booleans(),
    trained_bytes=st.integers(0, 10 * GB),
    optimizer_bytes=st.integers(0, 20 * GB),
    renewed_bytes=st.integers(0, 20 * GB),
    rows=st.integers(1, 64),
    tokens=st.integers(1, 8192),
    checkpointing=st.booleans(),
)


def test_logits_match_measured_qwen3() -> None:
    parts = parts_of(QWEN3_06B, LORA)
    assert parts.logits == pytest.approx(10e9, rel=0.06), "10 GB for Qwen3 at 4 x 2048 in bf16"


def test_checkpointing_saves_activations() -> None:
    plain, again = (parts_of(QWEN3_06B, dataclasses.replace(LORA, checkpointing=on)) for on in (False, True))
    assert again.activations < plain.activations / 3
    assert (again.logits, again.weights, again.trained) == (plain.logits, plain.weights, plain.trained)


def test_small_full_tune_peaks_in_update() -> None:
    small = dataclasses.replace(
        LORA, fine_tune_type="full", rows=1, tokens=32, trained_bytes=GB, optimizer_bytes=2 * GB, renewed_bytes=2 * GB
    )
    parts = parts_of(QWEN3_06B, small)
    assert parts.activations == 0
    assert parts.device == QWEN3_06B.weights_bytes + 2 * GB + 5 * GB


def test_small_run_takes_the_program_size() -> None:
    tiny = dataclasses.replace(LORA, rows=1, tokens=1)
    shape = dataclasses.replace(QWEN3_06B, weights_bytes=1000, vocabulary=100)
    assert parts_of(shape, tiny).shown > PROGRAM_BYTES


@given(
    SHAPES, WORKS, st.sampled_from(["rows", "tokens", "rank", "trained_layers", "trained_bytes"]), st.integers(1, 64)
)
def test_larger_training_takes_more(shape: ModelShape, work: TrainingShape, what: str, more: int) -> None:
    larger = dataclasses.replace(work, **{what: getattr(work, what) + more})
    assert parts_of(shape, larger).device >= parts_of(shape, work).device
    assert estimate_memory(parts_of(shape, larger)).high >= estimate_memory(parts_of(shape, work)).high


@given(SHAPES, WORKS, st.lists(st.floats(0.3, 3.0), max_size=5))
def test_range_contains_expected_value(shape: ModelShape, work: TrainingShape, ratios: list[float]) -> None:
    others = [ObservedPeak(job_id=1, peak_bytes=1, ratio=ratio) for ratio in ratios]
    found = estimate_memory(parts_of(shape, work), others=others)
    assert 0 <= found.low <= found.expected <= found.high


def measured(ratio: float, job_id: int = 3, peak: int = GB) -> ObservedPeak:
    return ObservedPeak(job_id=job_id, peak_bytes=peak, ratio=ratio)


def test_same_settings_replace_the_formula() -> None:
    found = estimate_memory(parts_of(QWEN3_06B, LORA), same=measured(1.0, peak=7 * GB), others=[measured(2.0)])
    assert found.expected == 7 * GB
    assert found.source is Source.SAME_SETTINGS


def test_other_runs_scale_the_estimate() -> None:
    parts = parts_of(QWEN3_06B, LORA)
    bare, one = estimate_memory(parts), estimate_memory(parts, others=[measured(1.5)])
    some = estimate_memory(parts, others=[measured(ratio, number) for number, ratio in enumerate((1.4, 1.5, 9.0))])
    assert len((1.4, 1.5, 9.0)) >= MANY
    assert (bare.low, bare.high) == tuple(int(share * parts.shown) for share in FORMULA_RANGE)
    assert one.expected == some.expected == int(1.5 * parts.shown)
    widths = [(found.high - found.low) / found.expected for found in (bare, one, some)]
    assert widths == sorted(widths, reverse=True)
    assert (bare.source, some.source) == (Source.FORMULA, Source.OTHER_SETTINGS)


@pytest.mark.parametrize(
    ("limit", "expected"), [(140, "fits"), (136, "fits"), (135, "tight"), (109, "tight"), (108, "does not fit")]
)
def test_verdict_uses_the_guards_limit(limit: int, expected: str) -> None:
    parts = dataclasses.replace(
        parts_of(QWEN3_06B, LORA), weights=100 * GB, trained=0, activations=0, logits=0, gradients=0
    )
    found = dataclasses.replace(estimate_memory(parts), expected=100, high=125)
    assert verdict(found, limit) == expected
