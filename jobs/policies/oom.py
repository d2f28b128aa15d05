"""The out-of-memory ladder (policies.md 4): the effective batch stays the same, each rung is a leg of the course.

An iteration stays what the user asked for. A smaller batch cuts each iteration into micro-batches of the same rows,
and the gradients of all of them are accumulated before the update: so every setting counted in iterations keeps its
meaning, and a resume in the middle too. Pure.
"""

from __future__ import annotations

import dataclasses

from jobs.model.run_plan import Leg

ENOUGH_FREE = 1.0
"""Trying once more as it was makes sense when more memory is free now than the run had taken at its peak."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rung:
    """The answer to an out-of-memory: a leg to go on under, or none where nothing is left to try."""

    leg: Leg | None  # None: fail
    again: bool  # the same settings once more, because another program was the cause
    text: str  # one line for a person


def next_rung(
    leg: Leg,
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
        leg: the leg it ran under.
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
            leg=leg, again=True, text=f"once more as it was: {free:.2f} GB are free now, its peak was {peak:.2f} GB"
        )
    smaller = _smaller(leg, allow_truncation=allow_truncation, lengths=lengths)
    if smaller is None:
        return Rung(leg=None, again=False, text=f"nothing smaller is left to try; {what_would_fit(leg)}")
    changed, text = smaller
    return Rung(
        leg=changed.going_on(first_example, because=f"out_of_memory: {text}"),
        again=False,
        text=text,
    )


def _smaller(leg: Leg, *, allow_truncation: bool, lengths: tuple[int, int] | None) -> tuple[Leg, str] | None:
    if not leg.grad_checkpoint:
        return dataclasses.replace(leg, grad_checkpoint=True), "gradient checkpointing on"
    if leg.batch_size > 1:
        size = _next_divisor(leg.batch_size)
        factor = leg.batch_size // size
        accumulation = leg.grad_accumulation_steps * factor
        text = (
            f"batch {leg.batch_size} -> {size}, accumulation {leg.grad_accumulation_steps} -> {accumulation}; "
            f"the effective batch stays {size * accumulation}"
        )
        return dataclasses.replace(leg, batch_size=size, grad_accumulation_steps=accumulation), text
    for length in lengths or ():
        if allow_truncation and length < leg.max_seq_length:
            text = f"max_seq_length {leg.max_seq_length} -> {length}; longer rows are cut"
            return dataclasses.replace(leg, max_seq_length=length), text
    return None


def _next_divisor(size: int) -> int:
    """Return the largest divisor that is at most half: 8 -> 4, 6 -> 3, 5 -> 1."""
    return next(candidate for candidate in range(size // 2, 0, -1) if size % candidate == 0)


def what_would_fit(leg: Leg) -> str:
    """Say what the user can change."""
    return (
        f"lower max_seq_length ({leg.max_seq_length}), num_layers or lora_parameters.rank, or use a quantized model; "
        "memory.allow_truncation: true lets lq cut long rows"
    )
