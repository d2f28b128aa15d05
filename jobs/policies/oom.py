"""The out-of-memory ladder (policies.md 4): the effective batch stays the same, each rung is a stage of the run plan.

An iteration stays what the user asked for. A smaller batch cuts each iteration into micro-batches of the same rows,
and the gradients of all of them are accumulated before the update: so every setting counted in iterations keeps its
meaning, and a resume in the middle too. Pure.
"""

from __future__ import annotations

import dataclasses

from jobs.model.run_plan import Stage

ENOUGH_FREE = 1.0
"""Trying once more as it was makes sense when more memory is free now than the run had taken at its peak."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rung:
    """The answer to an out-of-memory: a stage to go on under, or none where nothing is left to try."""

    stage: Stage | None  # None: fail
    again: bool  # the same settings once more, because another program was the cause
    text: str  # one line for a person


def next_rung(
    stage: Stage,
    *,
    first_example: int,
    may_repeat: bool,
    peak_bytes: int | None,
    free_bytes: int | None,
    allow_truncation: bool,
    lengths: tuple[int, int] | None = None,
) -> Rung:
    """Choose what to try after an attempt ran out of memory.

    Args:
        stage: the stage it ran under.
        first_example: examples seen where the next attempt will begin.
        may_repeat: whether the same settings may be tried once more: not yet tried, and not refused by their size.
        peak_bytes: the most the run had taken; None where it is not known.
        free_bytes: what is free now; None where it is not known.
        allow_truncation: `lq.memory.allow_truncation`.
        lengths: the 99th and 95th percentile of the rows' lengths in tokens, where known.
    """
    if may_repeat and peak_bytes is not None and free_bytes is not None and free_bytes > ENOUGH_FREE * peak_bytes:
        free, peak = free_bytes / 1e9, peak_bytes / 1e9
        return Rung(
            stage=stage, again=True, text=f"once more as it was: {free:.2f} GB are free now, its peak was {peak:.2f} GB"
        )
    smaller = _smaller(stage, allow_truncation=allow_truncation, lengths=lengths)
    if smaller is None:
        return Rung(stage=None, again=False, text=f"nothing smaller is left to try; {what_would_fit(stage)}")
    changed, text = smaller
    return Rung(
        stage=changed.continued(first_example, because=f"out_of_memory: {text}"),
        again=False,
        text=text,
    )


def _smaller(stage: Stage, *, allow_truncation: bool, lengths: tuple[int, int] | None) -> tuple[Stage, str] | None:
    if not stage.grad_checkpoint:
        return dataclasses.replace(stage, grad_checkpoint=True), "gradient checkpointing on"
    if stage.batch_size > 1:
        size = _next_divisor(stage.batch_size)
        factor = stage.batch_size // size
        accumulation = stage.grad_accumulation_steps * factor
        text = (
            f"batch {stage.batch_size} -> {size}, accumulation {stage.grad_accumulation_steps} -> {accumulation}; "
            f"the effective batch stays {size * accumulation}"
        )
        return dataclasses.replace(stage, batch_size=size, grad_accumulation_steps=accumulation), text
    for length in lengths or ():
        if allow_truncation and length < stage.max_seq_length:
            text = f"max_seq_length {stage.max_seq_length} -> {length}; longer rows are cut"
            return dataclasses.replace(stage, max_seq_length=length), text
    return None


def _next_divisor(size: int) -> int:
    """Return the largest divisor that is at most half: 8 -> 4, 6 -> 3, 5 -> 1."""
    return next(candidate for candidate in range(size // 2, 0, -1) if size % candidate == 0)


def what_would_fit(stage: Stage) -> str:
    """Say what the user can change."""
    return (
        f"lower max_seq_length ({stage.max_seq_length}), num_layers or lora_parameters.rank, or use a quantized model; "
        "memory.allow_truncation: true lets lq cut long rows"
    )
