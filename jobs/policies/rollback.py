"""Going back after a spike (policies.md 2): to which checkpoint, under which stage, and when to give up. Pure.

A rollback that is interrupted must end as if it had not been. So nothing here looks at what depends on the moment:
candidates are only the checkpoints at rollback points, which every run of the same job writes at the same iterations,
and never those that a pause, a kill or the clock happened to leave.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs.loss.alarms import LossFinding
from jobs.model.run_plan import RunPlan, Stage

if TYPE_CHECKING:
    from jobs.model.spec import JobSpec

LEAST_DISTANCE, LEAST_REPORTS = 100, 10
"""A target lies at least so many iterations, and so many reports, before the first flag."""

CALM_REPORTS = 5
"""So many unflagged reports after a checkpoint make it a healthy one."""

NEAR_ITERATIONS, NEAR_SHARE = 1000, 0.1
"""A spike within so many iterations of the one before it, or that share of the run, is answered one step harder."""

SKIP_BEYOND, MOST_SKIPPED, MOST_SKIPPED_SHARE = 50, 500, 0.1
"""Rows are left out up to so many iterations after the detection; at most so many batches, and that share of an epoch.
"""

CLIP = 1.0
FLAGS = 4  # reports the detector looks at (spikes.py)
HARDEST = 3
WARM_UP = {2: 50, 3: 150}
"""Updates over which the learning rate climbs back, by escalation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RollbackCandidate:
    """A checkpoint the run could go back to; it verifies and lies on the run plan."""

    iteration: int
    updates: int  # made by then
    best: bool  # of all that were validated before the alarm; always there, and so no matter of when anybody looked
    healthy: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rollback:
    """Where to go back to, and how to go on from there."""

    stage: Stage
    target: int  # iteration of the checkpoint; 0 for the beginning
    text: str  # one line for a person


def distance(spec: JobSpec) -> int:
    """Return how many iterations a target lies before the first flag, at least."""
    return max(LEAST_DISTANCE, LEAST_REPORTS * spec.steps_per_report)


def spacing(spec: JobSpec) -> int:
    """Return the iterations between two rollback points: the multiple of `save_every` next above half the distance."""
    half = distance(spec) / 2
    return spec.save_every * max(1, -(-int(half) // spec.save_every))


def reach(spec: JobSpec) -> int:
    """Return how many iterations back from the present rollback points are kept.

    Enough for one step further back than the target of a spike that is flagged for as long as it takes to be sure.
    """
    return distance(spec) + FLAGS * spec.steps_per_report + 2 * spacing(spec)


def most_points(spec: JobSpec) -> int:
    """Return how many checkpoints stay at most because the run may have to go back to them: points, and a target."""
    return math.ceil(reach(spec) / spacing(spec)) + 1


def is_point(iteration: int, spec: JobSpec) -> bool:
    """Say whether a checkpoint at this iteration is one that every run of this job writes, and may go back to.

    Those are the first ends of an update at or after each multiple of the spacing.
    """
    accumulation, every = spec.grad_accumulation_steps, spacing(spec)
    return iteration > 0 and iteration % accumulation == 0 and iteration // every > (iteration - accumulation) // every


def escalation(finding: LossFinding, stages: Sequence[Stage], spec: JobSpec, *, before: int) -> int:
    """Return how hard a spike is answered: 1, or one step harder than the one near before it.

    Args:
        finding: what was seen.
        stages: of the run plan, in the order of their decisions.
        spec: how long the run is.
        before: rollbacks since the user last asked for the job.
    """
    last = next((stage for stage in reversed(stages) if stage.rollback), None)
    if before == 0 or last is None or last.first_flag is None:
        return 1
    near = max(NEAR_ITERATIONS, NEAR_SHARE * spec.iters)
    return min(last.rollback + 1, HARDEST) if abs(finding.first_flag - last.first_flag) <= near else 1


def roll_back(
    finding: LossFinding,
    *,
    spec: JobSpec,
    stages: Sequence[Stage],
    candidates: Sequence[RollbackCandidate],
    batches_per_epoch: int,
    before: int,
) -> Rollback:
    """Decide where to go back to after a spike, and under which stage.

    Args:
        finding: what was seen.
        spec: what was asked for.
        stages: of the run plan; the last is what the run goes on from.
        candidates: checkpoints at rollback points, and the best one, in any order.
        batches_per_epoch: batches of the job file in an epoch.
        before: rollbacks since the user last asked for the job.
    """
    step = escalation(finding, stages, spec, before=before)
    found = _target(step, finding, spec, stages, candidates)
    target = found.iteration if found is not None else 0
    first = RunPlan(stages=tuple(stages)).example_of(target)
    updates = found.updates if found is not None else 0
    skipped = window(target, finding, batches_per_epoch)
    now = stages[-1]
    clip = CLIP if now.grad_clip is None else min(now.grad_clip, CLIP)
    factor = now.learning_rate_factor * (1.0 if step == 1 else 0.5)
    place = f"iteration {target:,}" if target else "the beginning"
    text = f"went back to {place} (rollback {step} of {HARDEST}); {_harder(step, factor, skipped)}"
    stage = now.continued(
        first,
        because=f"{finding.alarm} at iteration {finding.iteration}",
        salt=max(stage.salt for stage in stages) + 1,
        skipped=skipped,
        grad_clip=clip,
        learning_rate_factor=factor,
        warmup_updates=WARM_UP.get(step, now.warmup_updates),
        first_update=updates,  # a climb that an earlier rollback asked for begins again from here
        reset_moments=step == HARDEST,
        rollback=step,
        first_flag=finding.first_flag,
    )
    return Rollback(stage=stage, target=target, text=text)


def _harder(step: int, factor: float, skipped: tuple[int, int]) -> str:
    batches = skipped[1] - skipped[0]
    words = [
        f"the rows of {batches:,} batches are left out for the rest of the epoch",
        f"gradients clipped to {CLIP:g}",
    ]
    if step in WARM_UP:
        words.append(f"learning rate x{factor:g} after {WARM_UP[step]} updates of warm-up")
    if step == HARDEST:
        words.append("moments reset")
    return ", ".join(words)


def _target(
    step: int, finding: LossFinding, spec: JobSpec, stages: Sequence[Stage], candidates: Sequence[RollbackCandidate]
) -> RollbackCandidate | None:
    """Choose the checkpoint; None for the beginning, where none is healthy and early enough.

    A point that retention lets go is none, even where it happens to be there still: whether it is depends on when the
    worker last looked.
    """
    points = _points(finding, spec, candidates)
    best = _best(finding, candidates)
    if step == HARDEST and best is not None:
        return best
    if step > 1:
        run_plan = RunPlan(stages=tuple(stages))
        last = next(stage for stage in reversed(stages) if stage.rollback)
        further = [one for one in points if run_plan.example_of(one.iteration) < last.first_example]
        points = further or points
    return points[-1] if points else best


def _points(finding: LossFinding, spec: JobSpec, candidates: Sequence[RollbackCandidate]) -> list[RollbackCandidate]:
    """Return the healthy rollback points early enough before the first flag, oldest first."""
    latest, oldest = finding.first_flag - distance(spec), finding.iteration - reach(spec)
    points = [one for one in candidates if one.healthy and oldest < one.iteration <= latest]
    return sorted((one for one in points if is_point(one.iteration, spec)), key=lambda one: one.iteration)


def _best(finding: LossFinding, candidates: Sequence[RollbackCandidate]) -> RollbackCandidate | None:
    """Return the best by validation, where it lies before the first flag."""
    return next((one for one in candidates if one.best and one.healthy and one.iteration < finding.first_flag), None)


def window(target: int, finding: LossFinding, batches_per_epoch: int) -> tuple[int, int]:
    """Return the iterations (after, up to) whose rows are left out.

    From the target to `SKIP_BEYOND` after the detection; where that is too much, those up to the first flag: what
    made it lies before it.

    Args:
        target: iteration of the checkpoint.
        finding: what was seen.
        batches_per_epoch: batches in an epoch.
    """
    most = max(1, min(MOST_SKIPPED, int(MOST_SKIPPED_SHARE * batches_per_epoch)))
    until = finding.iteration + SKIP_BEYOND
    if until - target <= most:
        return target, until
    start = max(target, finding.first_flag - most)
    return start, start + most


def healthy_target(
    finding: LossFinding, spec: JobSpec, candidates: Sequence[RollbackCandidate]
) -> RollbackCandidate | None:
    """Return what a run that is given up shows: the best by validation before the spike, else the newest point."""
    points = _points(finding, spec, candidates)
    return _best(finding, candidates) or (points[-1] if points else None)
