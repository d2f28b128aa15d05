"""Carries out a retention plan: milestones become adapters in MLX-LM's layout, the rest goes, oldest first. No mlx."""

from __future__ import annotations

import re
from pathlib import Path

from jobs.model.errors import CheckpointInvalid
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.policies.retention import CheckpointFact, RetentionDecision, plan
from workers.checkpoints import storage
from workers.checkpoints.adapters import place
from workers.checkpoints.storage import Checkpoint
from workers.files.job_dir import JobDir

_NUMBERED = re.compile(r"(\d{7,})_adapters\.safetensors")


def prune(
    job_dir: JobDir, spec: JobSpec, run_plan: RunPlan, *, suspicion: bool = False, ended: bool = False
) -> list[RetentionDecision]:
    """Delete what need not stay; nothing goes unless the newest checkpoint verifies.

    Killed at any moment it loses nothing: a milestone's adapter is linked before its checkpoint goes, and a checkpoint
    that goes loses its name first.

    Args:
        job_dir: the job's folder.
        spec: what is to be kept.
        run_plan: a checkpoint that a later stage left behind goes too.
        suspicion: the loss is under suspicion; nothing goes.
        ended: the run is at its end; nobody goes back any more.

    Returns:
        What became of each checkpoint.
    """
    fates = planned(job_dir, spec, run_plan, suspicion=suspicion, ended=ended)
    there = {checkpoint.iteration: checkpoint for checkpoint in storage.listed(job_dir.checkpoints)}
    for fate in fates:
        if fate.adapter_kept:
            _keep_adapter(job_dir, there[fate.iteration])
        if not fate.kept:
            storage.remove(there[fate.iteration].path)
    return fates


def planned(
    job_dir: JobDir, spec: JobSpec, run_plan: RunPlan, *, suspicion: bool = False, ended: bool = False
) -> list[RetentionDecision]:
    """Decide as `prune` does, and delete nothing. Empty where the newest checkpoint does not verify."""
    newest, bad = storage.newest_valid(job_dir.checkpoints, run_plan)
    if newest is None or bad:
        return []
    facts, left_behind = [], []
    for checkpoint in storage.listed(job_dir.checkpoints):
        fact = _fact(checkpoint, run_plan)
        if fact is not None:
            facts.append(fact)
        elif _is_left_behind(checkpoint, run_plan) and not suspicion:
            left_behind.append(checkpoint.iteration)
    kept = plan(facts, spec=spec, run_plan=run_plan, adapters=kept_adapters(job_dir), suspicion=suspicion, ended=ended)
    gone = [
        RetentionDecision(
            iteration=iteration, kept=False, adapter_kept=False, because="left behind: the run went back before it"
        )
        for iteration in left_behind
    ]
    return sorted([*kept, *gone], key=lambda fate: fate.iteration)


def _is_left_behind(checkpoint: Checkpoint, run_plan: RunPlan) -> bool:
    try:
        return not storage.is_on(run_plan, checkpoint)
    except CheckpointInvalid:
        return False


def forget_beyond(job_dir: JobDir, iteration: int) -> None:
    """Delete the milestones of weights that a rollback has given up.

    Args:
        job_dir: the job's folder.
        iteration: where the run went back to; later milestones go.
    """
    for kept in kept_adapters(job_dir):
        if kept > iteration:
            _milestone(job_dir, kept).unlink(missing_ok=True)


def kept_adapters(job_dir: JobDir) -> set[int]:
    """Return the iterations whose adapters lie in the job's adapters/ under MLX-LM's numbered names."""
    found = job_dir.adapters.glob("*_adapters.safetensors")
    return {int(match[1]) for path in found if (match := _NUMBERED.fullmatch(path.name))}


def _fact(checkpoint: Checkpoint, run_plan: RunPlan) -> CheckpointFact | None:
    try:
        if not storage.is_on(run_plan, checkpoint):
            return None
        loss = storage.validation_loss(checkpoint.state())
    except CheckpointInvalid:
        return None
    return CheckpointFact(iteration=checkpoint.iteration, validation_loss=loss)


def _keep_adapter(job_dir: JobDir, checkpoint: Checkpoint) -> None:
    job_dir.adapters.mkdir(exist_ok=True)
    target = _milestone(job_dir, checkpoint.iteration)
    if not target.exists():
        place(checkpoint.adapters, target, link=True)


def _milestone(job_dir: JobDir, iteration: int) -> Path:
    return job_dir.adapters / f"{iteration:07d}_adapters.safetensors"
