"""Which checkpoints stay (policies.md 6). Pure: facts in, a plan out; the newest, the best and where to go back to
always stay.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence

from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.policies.rollback import is_point, reach

CLEAN_ITERATIONS = 1000
"""What a rollback went back to stays until so many iterations after the spike."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointFact:
    """What retention looks at; only checkpoints that lie on the run plan."""

    iteration: int
    validation_loss: float | None  # nats per token; None where none was measured there


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetentionDecision:
    """What becomes of one checkpoint."""

    iteration: int
    kept: bool
    adapter_kept: bool  # where it goes: its adapter alone stays, as a milestone
    because: str


def plan(
    facts: Sequence[CheckpointFact],
    *,
    spec: JobSpec,
    run_plan: RunPlan,
    adapters: Collection[int] = (),
    suspicion: bool = False,
    ended: bool = False,
) -> list[RetentionDecision]:
    """Decide about every checkpoint; deciding again about what was kept changes nothing.

    Args:
        facts: complete, verified checkpoints, in any order.
        spec: what is to be kept, and where the run may have to go back to.
        run_plan: the stages; what a rollback went back to stays for a while.
        adapters: iterations whose adapter was kept as a milestone already.
        suspicion: the loss is under suspicion; nothing goes.
        ended: the run is at its end; nobody goes back any more.

    Returns:
        One fate a checkpoint, oldest first.
    """
    ordered = sorted(facts, key=lambda fact: fact.iteration)
    keep = spec.lq.keep
    reasons: list[tuple[str, set[int]]] = [
        ("one of the last", {fact.iteration for fact in ordered[-keep.last :]}),
        ("best by validation", _best(ordered, keep.best)),
    ]
    if not ended:
        reasons += [("a place to go back to", _points(ordered, spec, run_plan))]
    if suspicion:
        reasons += [("the loss is under suspicion", {fact.iteration for fact in ordered})]
    seen = {*adapters, *(fact.iteration for fact in ordered)}
    milestones = milestones_among(seen, share=keep.milestone_share, iters=spec.iters)
    return [_fate(fact.iteration, reasons, milestones) for fact in ordered]


def _points(ordered: Sequence[CheckpointFact], spec: JobSpec, run_plan: RunPlan) -> set[int]:
    """Return the rollback points within reach, and what the last rollbacks went back to, until that proved good."""
    if not ordered:
        return set()
    now = ordered[-1].iteration
    near = {fact.iteration for fact in ordered if is_point(fact.iteration, spec) and fact.iteration > now - reach(spec)}
    targets = {
        run_plan.iteration_of(stage.first_example)
        for stage in run_plan.stages
        if stage.rollback and stage.first_flag is not None and now < stage.first_flag + CLEAN_ITERATIONS
    }
    return near | (targets & {fact.iteration for fact in ordered})


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


def _fate(iteration: int, reasons: Sequence[tuple[str, set[int]]], milestones: set[int]) -> RetentionDecision:
    words = [word for word, those in reasons if iteration in those]
    milestone = iteration in milestones
    if words:
        return RetentionDecision(iteration=iteration, kept=True, adapter_kept=milestone, because=" and ".join(words))
    because = "a milestone: its adapter stays" if milestone else "newer ones verify"
    return RetentionDecision(iteration=iteration, kept=False, adapter_kept=milestone, because=because)
