"""What a person can change so that a run fits, in the order of least harm. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

LEAST_RANK, LEAST_LAYERS = 4, 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The keys of a job file that its memory goes by."""

    batch_size: int
    grad_accumulation_steps: int
    iters: int
    grad_checkpoint: bool
    max_seq_length: int  # tokens
    rank: int | None  # of adapters; None where there are none
    num_layers: int  # trained


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """Something to try."""

    settings: Settings
    text: str  # for a person: what to write, and what that costs


def changes(asked: Settings, *, cuts: tuple[tuple[int, float], ...] = ()) -> Iterator[Change]:
    """Yield what to try, the least harmful first.

    Smaller micro-batches with as many rows an update train the same, a little slower; checkpointing trains the same,
    slower by a third; then long rows are cut, and at last less is trained.

    Args:
        asked: what the job file says.
        cuts: lengths to cut rows to, in tokens, each with the share of rows that would be cut, the least harmful first.
    """
    yield from _smaller_batches(asked)
    if not asked.grad_checkpoint:
        with_it = dataclasses.replace(asked, grad_checkpoint=True)
        yield Change(settings=with_it, text="grad_checkpoint: true (a third slower)")
        yield from _smaller_batches(with_it, "and ")
    now = dataclasses.replace(_single(asked), grad_checkpoint=True)
    for length, share in cuts:
        if length < now.max_seq_length:
            now = dataclasses.replace(now, max_seq_length=length)
            yield Change(settings=now, text=f"and max_seq_length {length} (cuts {share:.1%} of the rows)")
    while now.rank is not None and now.rank // 2 >= LEAST_RANK:
        now = dataclasses.replace(now, rank=now.rank // 2)
        yield Change(settings=now, text=f"and rank {now.rank}")
    while now.num_layers // 2 >= LEAST_LAYERS:
        now = dataclasses.replace(now, num_layers=now.num_layers // 2)
        yield Change(settings=now, text=f"and num_layers {now.num_layers}")


def _smaller_batches(settings: Settings, before: str = "") -> Iterator[Change]:
    while (factor := _smallest_factor(settings.batch_size)) > 1:
        settings = _cut(settings, factor)
        text = (
            f"{before}batch_size {settings.batch_size}, accumulation {settings.grad_accumulation_steps}, "
            f"iters {settings.iters}"
        )
        yield Change(settings=settings, text=text)


def _single(settings: Settings) -> Settings:
    return _cut(settings, settings.batch_size)


def _cut(settings: Settings, factor: int) -> Settings:
    """Return micro-batches so many times smaller, and so many times more of them: MLX-LM's iters counts them."""
    return dataclasses.replace(
        settings,
        batch_size=settings.batch_size // factor,
        grad_accumulation_steps=settings.grad_accumulation_steps * factor,
        iters=settings.iters * factor,
    )


def _smallest_factor(size: int) -> int:
    return next((factor for factor in range(2, size + 1) if size % factor == 0), 1)
