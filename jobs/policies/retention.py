"""Which checkpoints lq keeps (docs/explanation/policies.md, section 6).

The newest and the best checkpoint and the targets of possible rollbacks are always kept.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence

from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.policies.rollback import is_point, reach

CLEAN_ITERATIONS = 1000
"""Iterations after a spike for which the target of its rollback is kept."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointFact:
    """A checkpoint that belongs to the run plan."""

    iteration: int
    validation_loss: float | None  # nats per token; None if not measured there


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetentionDecision:
    """Whether one checkpoint is kept."""

    iteration: int
    kept: bool
    adapter_kept: bool  # as a milestone, also if the checkpoint is deleted
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
    """Decide about every checkpoint, oldest first. The function is idempotent.

    Args:
        facts: complete, verified checkpoints, in any order.
        adapters: iterations whose adapter was already kept as a milestone.
        suspicion: a `suspect` alarm is open; all are kept.
        ended: the run has ended; there are no more rollbacks.
    """
    ordered = sorted(facts, key=lambda fact: fact.iteration)
    keep = spec.lq.keep
    scored = [
        (fact.validation_loss, fact.iteration)
        for fact in ordered
        if fact.validation_loss is not None and math.isfinite(fact.validation_loss)
    ]
    reasons: list[tuple[str, set[int]]] = [
        ("one of the last", {fact.iteration for fact in ordered[-keep.last :]}),
        ("best by validation", {iteration for _, iteration in sorted(scored)[: keep.best]}),
    ]
    if not ended:
        reasons += [("rollback point", _rollback_points(ordered, spec, run_plan))]
    if suspicion:
        reasons += [("open loss suspicion", {fact.iteration for fact in ordered})]
    existing = {*adapters, *(fact.iteration for fact in ordered)}
    milestones = milestones_among(existing, share=keep.milestone_share, iters=spec.iters)
    decisions = []
    for iteration in (fact.iteration for fact in ordered):
        because = " and ".join(reason for reason, iterations in reasons if iteration in iterations)
        milestone = iteration in milestones
        otherwise = "milestone: its adapter is kept" if milestone else "newer checkpoints verify"
        decisions.append(
            RetentionDecision(
                iteration=iteration, kept=bool(because), adapter_kept=milestone, because=because or otherwise
            )
        )
    return decisions


def _rollback_points(ordered: Sequence[CheckpointFact], spec: JobSpec, run_plan: RunPlan) -> set[int]:
    """Return the rollback points within reach and the targets of recent rollbacks."""
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
    if share <= 0:
        return set()
    every = max(1.0, share * iters)
    first: dict[int, int] = {}
    for iteration in sorted(iterations):
        first.setdefault(int(iteration / every), iteration)
    return {iteration for step, iteration in first.items() if step > 0}
