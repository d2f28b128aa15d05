"""The out-of-memory ladder: what the worker changes after an out-of-memory, in its order. Pure.

Each step is a stage of the run plan, and the effective batch stays the same: a smaller batch cuts each iteration into
micro-batches of the same rows, whose gradients are accumulated before the update. So every setting counted in
iterations keeps its meaning, also for a resume between two steps.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from jobs.model.run_plan import Stage

if TYPE_CHECKING:
    from jobs.policies.decision import History

LEAST_RANK, LEAST_LAYERS = 4, 4
"""A user is not advised to go below these."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LadderStep:
    """The stage to try after an out-of-memory."""

    stage: Stage | None  # None: nothing is left to try, and the job fails
    again: bool  # the same settings once more, because another program took the memory
    text: str  # one line for the user


@dataclasses.dataclass(frozen=True, kw_only=True)
class UserChange:
    """Settings that save memory but change what is trained, so that only the user may change them."""

    max_seq_length: int  # tokens
    rank: int | None  # of adapters; None for full fine-tuning
    num_layers: int
    text: str  # the last change, for the user


def next_step(stage: Stage, history: History, *, may_repeat: bool, allow_truncation: bool) -> LadderStep:
    """Choose the stage to try after an attempt on `stage` ran out of memory.

    `may_repeat`: whether the same settings may be tried once more: not tried yet, and not too large by themselves.
    """
    peak, free = history.peak_bytes, history.free_bytes
    if may_repeat and peak is not None and free is not None and free > peak:
        text = f"same settings again: {free / 1e9:.2f} GB are free now, the peak was {peak / 1e9:.2f} GB"
        return LadderStep(stage=stage, again=True, text=text)
    smaller = _smaller(stage, (history.lengths or ()) if allow_truncation else ())
    if smaller is None:
        return LadderStep(stage=None, again=False, text=f"no smaller settings are left; {advice(stage)}")
    changed, text = smaller
    return LadderStep(
        stage=changed.continued(history.next_example, because=f"out_of_memory: {text}"), again=False, text=text
    )


def ladder(stage: Stage, *, allow_truncation: bool, lengths: Sequence[int] = ()) -> Iterator[tuple[Stage, str]]:
    """Yield the stages that the worker would try one after the other, each with one line for the user."""
    while (smaller := _smaller(stage, lengths if allow_truncation else ())) is not None:
        yield smaller
        stage = smaller[0]


def _smaller(stage: Stage, cuts: Sequence[int]) -> tuple[Stage, str] | None:
    if not stage.grad_checkpoint:
        return dataclasses.replace(stage, grad_checkpoint=True), "gradient checkpointing on"
    if stage.batch_size > 1:
        half = stage.batch_size // 2
        size = next(size for size in range(half, 0, -1) if stage.batch_size % size == 0)  # 8 -> 4, 6 -> 3, 5 -> 1
        accumulation = stage.grad_accumulation_steps * stage.batch_size // size
        text = (
            f"batch {stage.batch_size} -> {size}, accumulation {stage.grad_accumulation_steps} -> {accumulation}; "
            f"the effective batch stays {size * accumulation}"
        )
        return dataclasses.replace(stage, batch_size=size, grad_accumulation_steps=accumulation), text
    length = next((cut for cut in cuts if cut < stage.max_seq_length), None)
    if length is None:
        return None
    text = f"max_seq_length {stage.max_seq_length} -> {length}; longer rows are cut"
    return dataclasses.replace(stage, max_seq_length=length), text


def user_changes(
    stage: Stage, *, rank: int | None, num_layers: int, cuts: Sequence[tuple[int, float]]
) -> Iterator[UserChange]:
    """Yield what only the user may change, each step on top of the ones before it, after the last step of the ladder.

    Args:
        rank: of the adapters; None for full fine-tuning.
        cuts: lengths to cut rows to, in tokens, each with the share of rows that it cuts, the longest first.
    """
    now = UserChange(max_seq_length=stage.max_seq_length, rank=rank, num_layers=num_layers, text="")
    for length, share in cuts:
        if length < now.max_seq_length:
            text = f"max_seq_length {length} (cuts {share:.1%} of the rows)"
            yield (now := dataclasses.replace(now, max_seq_length=length, text=text))
    while now.rank is not None and now.rank // 2 >= LEAST_RANK:
        yield (now := dataclasses.replace(now, rank=now.rank // 2, text=f"lora_parameters.rank {now.rank // 2}"))
    while now.num_layers // 2 >= LEAST_LAYERS:
        yield (
            now := dataclasses.replace(now, num_layers=now.num_layers // 2, text=f"num_layers {now.num_layers // 2}")
        )


def advice(stage: Stage) -> str:
    """Return what the user can change after the last step."""
    return (
        f"lower max_seq_length ({stage.max_seq_length}), num_layers or lora_parameters.rank, or use a quantized model; "
        "memory.allow_truncation: true lets lq cut long rows"
    )
