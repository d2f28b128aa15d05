"""The memory a run will take: what makes it more, what corrects it, and what to change."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.estimates.fit_advice import Change, Settings, changes
from jobs.estimates.memory import (
    FORMULA_RANGE,
    MANY,
    PROGRAM_BYTES,
    Measurement,
    ModelShape,
    Work,
    estimate,
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
LORA = Work(
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
    Work,
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


def test_the_logits_of_a_large_vocabulary_are_what_field_notes_measured() -> None:
    parts = parts_of(QWEN3_06B, LORA)
    assert parts.logits == pytest.approx(10e9, rel=0.06), "10 GB for Qwen3 at 4 x 2048 in bf16"


def test_checkpointing_saves_activations_and_nothing_else() -> None:
    plain, again = (parts_of(QWEN3_06B, dataclasses.replace(LORA, checkpointing=on)) for on in (False, True))
    assert again.activations < plain.activations / 3
    assert (again.logits, again.weights, again.trained) == (plain.logits, plain.weights, plain.trained)


def test_a_full_fine_tune_of_few_rows_peaks_in_its_update() -> None:
    small = dataclasses.replace(
        LORA, fine_tune_type="full", rows=1, tokens=32, trained_bytes=GB, optimizer_bytes=2 * GB, renewed_bytes=2 * GB
    )
    parts = parts_of(QWEN3_06B, small)
    assert parts.activations == 0
    assert parts.device == QWEN3_06B.weights_bytes + 2 * GB + 5 * GB


def test_a_small_run_shows_at_least_the_program_itself() -> None:
    tiny = dataclasses.replace(LORA, rows=1, tokens=1)
    shape = dataclasses.replace(QWEN3_06B, weights_bytes=1000, vocabulary=100)
    assert parts_of(shape, tiny).shown > PROGRAM_BYTES


@given(
    SHAPES, WORKS, st.sampled_from(["rows", "tokens", "rank", "trained_layers", "trained_bytes"]), st.integers(1, 64)
)
def test_more_never_takes_less(shape: ModelShape, work: Work, what: str, more: int) -> None:
    larger = dataclasses.replace(work, **{what: getattr(work, what) + more})
    assert parts_of(shape, larger).device >= parts_of(shape, work).device
    assert estimate(parts_of(shape, larger)).high >= estimate(parts_of(shape, work)).high


@given(SHAPES, WORKS, st.lists(st.floats(0.3, 3.0), max_size=5))
def test_a_range_holds_what_is_expected(shape: ModelShape, work: Work, ratios: list[float]) -> None:
    others = [Measurement(job_id=1, peak_bytes=1, ratio=ratio) for ratio in ratios]
    found = estimate(parts_of(shape, work), others=others)
    assert 0 <= found.low <= found.expected <= found.high


def measured(ratio: float, job_id: int = 3, peak: int = GB) -> Measurement:
    return Measurement(job_id=job_id, peak_bytes=peak, ratio=ratio)


def test_what_the_same_settings_took_is_believed() -> None:
    found = estimate(parts_of(QWEN3_06B, LORA), same=measured(1.0, peak=7 * GB), others=[measured(2.0)])
    assert found.expected == 7 * GB
    assert found.because == "measured in job 3"


def test_other_runs_scale_the_estimate_and_narrow_its_range() -> None:
    parts = parts_of(QWEN3_06B, LORA)
    bare, one = estimate(parts), estimate(parts, others=[measured(1.5)])
    some = estimate(parts, others=[measured(ratio, number) for number, ratio in enumerate((1.4, 1.5, 9.0))])
    assert len((1.4, 1.5, 9.0)) >= MANY
    assert (bare.low, bare.high) == tuple(int(share * parts.shown) for share in FORMULA_RANGE)
    assert one.expected == some.expected == int(1.5 * parts.shown)
    widths = [(found.high - found.low) / found.expected for found in (bare, one, some)]
    assert widths == sorted(widths, reverse=True)
    assert some.because == "reckoned, then times 1.50 as 3 jobs with this model took"


@pytest.mark.parametrize(
    ("limit", "expected"), [(140, "fits"), (136, "fits"), (135, "tight"), (109, "tight"), (108, "does not fit")]
)
def test_verdict_uses_the_guards_limit(limit: int, expected: str) -> None:
    parts = dataclasses.replace(
        parts_of(QWEN3_06B, LORA), weights=100 * GB, trained=0, activations=0, logits=0, gradients=0
    )
    found = dataclasses.replace(estimate(parts), expected=100, high=125)
    assert verdict(found, limit) == expected


# --- what to change ---

ASKED = Settings(
    batch_size=4,
    grad_accumulation_steps=1,
    iters=1000,
    grad_checkpoint=False,
    max_seq_length=2048,
    rank=16,
    num_layers=16,
)


def test_the_least_harm_comes_first() -> None:
    tried = list(changes(ASKED, cuts=((900, 0.01), (500, 0.05))))
    assert [one.text for one in tried] == [
        "batch_size 2, accumulation 2, iters 2000",
        "batch_size 1, accumulation 4, iters 4000",
        "grad_checkpoint: true (a third slower)",
        "and batch_size 2, accumulation 2, iters 2000",
        "and batch_size 1, accumulation 4, iters 4000",
        "and max_seq_length 900 (cuts 1.0% of the rows)",
        "and max_seq_length 500 (cuts 5.0% of the rows)",
        "and rank 8",
        "and rank 4",
        "and num_layers 8",
        "and num_layers 4",
    ]


@given(st.integers(1, 96), st.integers(1, 8), st.booleans())
def test_the_rows_of_an_update_and_of_the_run_stay(batch: int, accumulation: int, checkpointing: bool) -> None:
    asked = dataclasses.replace(
        ASKED, batch_size=batch, grad_accumulation_steps=accumulation, grad_checkpoint=checkpointing
    )
    for change in changes(asked):
        now = change.settings
        assert now.batch_size * now.grad_accumulation_steps == batch * accumulation
        assert now.batch_size * now.iters == batch * asked.iters
    assert _last(asked).settings.batch_size == 1


def _last(asked: Settings) -> Change:
    return list(changes(asked))[-1]


def test_a_full_fine_tune_has_no_rank_to_lower() -> None:
    assert not any("rank" in one.text for one in changes(dataclasses.replace(ASKED, rank=None)))
