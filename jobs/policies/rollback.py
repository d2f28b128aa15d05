"""The target of a rollback and the stage that it appends (docs/explanation/policies.md, section 2).

An interrupted rollback must end like one that was not interrupted. The decision therefore uses nothing that depends on
the time: candidates are only the checkpoints at rollback points, which every run of a job writes at the same
iterations, and no checkpoints left by a pause, a kill or the clock.
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
    from jobs.policies.decision import History

LEAST_DISTANCE, LEAST_REPORTS = 100, 10
"""Minimum distance of the target from the first flag, in iterations and in reports."""

CALM_REPORTS = 5
"""Unflagged reports after a checkpoint that make it healthy."""

NEAR_ITERATIONS, NEAR_SHARE = 1000, 0.1
"""A rollback escalates if the previous spike is within these iterations, or this share of the run."""

SKIP_BEYOND, MAX_SKIPPED, MAX_SKIPPED_SHARE = 50, 500, 0.1
"""Rows are left out up to this many iterations after the detection, but at most this many batches and this share of an
epoch."""

CLIP = 1.0
FLAGS = 4  # reports in which jobs/loss/detector.py counts flags
LAST_STEP = 3
WARM_UP = {2: 50, 3: 150}
"""Updates over which the learning rate returns to its schedule, by escalation step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RollbackCandidate:
    """A checkpoint that verifies and belongs to the run plan."""

    iteration: int
    updates: int  # made by then
    best: bool  # the best by validation before the alarm; it always exists, so it does not depend on the time
    healthy: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rollback:
    """The target of a rollback and the new stage."""

    stage: Stage
    target: int  # iteration of the checkpoint; 0 for the beginning
    text: str  # one line for the user


def distance(spec: JobSpec) -> int:
    """Return the minimum distance of a target from the first flag, in iterations."""
    return max(LEAST_DISTANCE, LEAST_REPORTS * spec.steps_per_report)


def spacing(spec: JobSpec) -> int:
    """Return the iterations between two rollback points: the multiple of `save_every` next above half the distance."""
    half = distance(spec) / 2
    return spec.save_every * max(1, -(-int(half) // spec.save_every))


def reach(spec: JobSpec) -> int:
    """Return how many iterations back rollback points are kept.

    It covers one more step back than the target of a spike that is detected as late as possible.
    """
    return distance(spec) + FLAGS * spec.steps_per_report + 2 * spacing(spec)


def most_points(spec: JobSpec) -> int:
    """Return the maximum number of checkpoints kept for rollbacks: the points, and one target."""
    return math.ceil(reach(spec) / spacing(spec)) + 1


def is_point(iteration: int, spec: JobSpec) -> bool:
    """Return whether an iteration is a rollback point, where every run of a job writes a checkpoint.

    These are the first ends of an update at or after each multiple of the spacing.
    """
    accumulation, every = spec.grad_accumulation_steps, spacing(spec)
    return iteration > 0 and iteration % accumulation == 0 and iteration // every > (iteration - accumulation) // every


def escalation(finding: LossFinding, stages: Sequence[Stage], spec: JobSpec, *, before: int) -> int:
    """Return the escalation step: 1, or one more than that of a rollback near this one; `before` counts them."""
    last = next((stage for stage in reversed(stages) if stage.rollback), None)
    if before == 0 or last is None or last.first_flag is None:
        return 1
    near = max(NEAR_ITERATIONS, NEAR_SHARE * spec.iters)
    return min(last.rollback + 1, LAST_STEP) if abs(finding.first_flag - last.first_flag) <= near else 1


def roll_back(finding: LossFinding, spec: JobSpec, history: History, *, before: int) -> Rollback:
    """Choose the target of a rollback and make its stage; `before` counts the rollbacks since the last retry."""
    stages = history.stages
    step = escalation(finding, stages, spec, before=before)
    checkpoint = _target(step, finding, spec, stages, history.candidates)
    target, updates = (checkpoint.iteration, checkpoint.updates) if checkpoint is not None else (0, 0)
    skipped = window(target, finding, history.batches_per_epoch)
    now = stages[-1]
    factor = now.learning_rate_factor * (1.0 if step == 1 else 0.5)
    stage = now.continued(
        RunPlan(stages=tuple(stages)).example_of(target),
        because=f"{finding.alarm} at iteration {finding.iteration}",
        salt=max(stage.salt for stage in stages) + 1,
        skipped=skipped,
        grad_clip=CLIP if now.grad_clip is None else min(now.grad_clip, CLIP),
        learning_rate_factor=factor,
        warmup_updates=WARM_UP.get(step, now.warmup_updates),
        first_update=updates,  # the warm-up of an earlier rollback starts again here
        reset_moments=step == LAST_STEP,
        rollback=step,
        first_flag=finding.first_flag,
    )
    return Rollback(stage=stage, target=target, text=_text(step, target, factor, skipped))


def _text(step: int, target: int, factor: float, skipped: tuple[int, int]) -> str:
    to = f"iteration {target:,}" if target else "the beginning"
    changes = [
        f"the rows of {skipped[1] - skipped[0]:,} batches are left out for the rest of the epoch",
        f"gradients clipped to {CLIP:g}",
    ]
    if step in WARM_UP:
        changes.append(f"learning rate x{factor:g} after {WARM_UP[step]} updates of warm-up")
    if step == LAST_STEP:
        changes.append("moments reset")
    return f"rolled back to {to} (rollback step {step} of {LAST_STEP}); {', '.join(changes)}"


def _target(
    step: int, finding: LossFinding, spec: JobSpec, stages: Sequence[Stage], candidates: Sequence[RollbackCandidate]
) -> RollbackCandidate | None:
    """Choose the checkpoint; None for the beginning, if none is healthy and early enough.

    A point beyond the reach is not a candidate even if it still exists, because that depends on the time.
    """
    points = _points(finding, spec, candidates)
    best = _best(finding, candidates)
    if step == LAST_STEP and best is not None:
        return best
    if step > 1:
        run_plan = RunPlan(stages=tuple(stages))
        last = next(stage for stage in reversed(stages) if stage.rollback)
        further = [point for point in points if run_plan.example_of(point.iteration) < last.first_example]
        points = further or points
    return points[-1] if points else best


def _points(finding: LossFinding, spec: JobSpec, candidates: Sequence[RollbackCandidate]) -> list[RollbackCandidate]:
    """Return the healthy rollback points far enough before the first flag, oldest first."""
    latest, oldest = finding.first_flag - distance(spec), finding.iteration - reach(spec)
    points = [each for each in candidates if each.healthy and oldest < each.iteration <= latest]
    return sorted((each for each in points if is_point(each.iteration, spec)), key=lambda each: each.iteration)


def _best(finding: LossFinding, candidates: Sequence[RollbackCandidate]) -> RollbackCandidate | None:
    """Return the best checkpoint by validation, if it is before the first flag."""
    return next(
        (each for each in candidates if each.best and each.healthy and each.iteration < finding.first_flag), None
    )


def window(target: int, finding: LossFinding, batches_per_epoch: int) -> tuple[int, int]:
    """Return the iterations (after, up to) whose rows are left out.

    They reach from the target to `SKIP_BEYOND` after the detection. If these are too many, they are those before the
    first flag, which caused the alarm.
    """
    most = max(1, min(MAX_SKIPPED, int(MAX_SKIPPED_SHARE * batches_per_epoch)))
    until = finding.iteration + SKIP_BEYOND
    if until - target <= most:
        return target, until
    start = max(target, finding.first_flag - most)
    return start, start + most


def healthy_target(
    finding: LossFinding, spec: JobSpec, candidates: Sequence[RollbackCandidate]
) -> RollbackCandidate | None:
    """Return the checkpoint to publish when the run fails: the best before the spike, or else the newest point."""
    points = _points(finding, spec, candidates)
    return _best(finding, candidates) or (points[-1] if points else None)
