"""Which checkpoints stay (policies.md 6). Pure: facts in, a plan out; the newest and the best always stay."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence

from jobs.spec import Keep


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointFact:
    """What retention looks at; only checkpoints that lie on the course."""

    iteration: int
    validation_loss: float | None  # nats per token; None where none was measured there


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fate:
    """What becomes of one checkpoint."""

    iteration: int
    kept: bool
    adapter_kept: bool  # where it goes: its adapter alone stays, as a milestone
    because: str


def plan(facts: Sequence[CheckpointFact], *, adapters: Collection[int] = (), keep: Keep, iters: int) -> list[Fate]:
    """Decide about every checkpoint; deciding again about what was kept changes nothing.

    Args:
        facts: complete, verified checkpoints, in any order.
        adapters: iterations whose adapter was kept as a milestone already.
        keep: `lq.keep`.
        iters: iterations of the whole run.

    Returns:
        One fate a checkpoint, oldest first.
    """
    ordered = sorted(facts, key=lambda fact: fact.iteration)
    last = {fact.iteration for fact in ordered[-keep.last :]}
    best = _best(ordered, keep.best)
    seen = {*adapters, *(fact.iteration for fact in ordered)}
    milestones = milestones_among(seen, share=keep.milestone_share, iters=iters)
    return [_fate(fact.iteration, last, best, milestones) for fact in ordered]


def milestones_among(iterations: Collection[int], *, share: float, iters: int) -> set[int]:
    """Return the first checkpoint at or after each tenth (or other share) of the run.

    Args:
        iterations: of the checkpoints there are and were, in any order.
        share: of the run between two milestones, 0..1; 0 for none.
        iters: iterations of the whole run.
    """
    if share <= 0:
        return set()
    every = max(1.0, share * iters)
    first: dict[int, int] = {}
    for iteration in sorted(iterations):
        first.setdefault(int(iteration / every), iteration)
    return {iteration for step, iteration in first.items() if step > 0}


def _best(facts: Sequence[CheckpointFact], count: int) -> set[int]:
    """Return the checkpoints with the lowest validation losses, the earliest of equals."""
    scored = [
        (fact.validation_loss, fact.iteration)
        for fact in facts
        if fact.validation_loss is not None and math.isfinite(fact.validation_loss)
    ]
    return {iteration for _, iteration in sorted(scored)[:count]}


def _fate(iteration: int, last: set[int], best: set[int], milestones: set[int]) -> Fate:
    reasons = [word for word, those in (("one of the last", last), ("best by validation", best)) if iteration in those]
    milestone = iteration in milestones
    if reasons:
        return Fate(iteration=iteration, kept=True, adapter_kept=milestone, because=" and ".join(reasons))
    because = "a milestone: its adapter stays" if milestone else "newer ones verify"
    return Fate(iteration=iteration, kept=False, adapter_kept=milestone, because=because)
