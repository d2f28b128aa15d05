"""Executes a retention plan: keeps milestones as adapters in MLX-LM's layout, deletes the rest. No mlx."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from jobs.model.errors import CheckpointInvalid
from jobs.model.job_dir import JobDir
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.policies.retention import CheckpointFact, RetentionDecision, plan
from workers.checkpoints import storage
from workers.checkpoints.adapters import place

_NUMBERED = re.compile(r"(\d{7,})_adapters\.safetensors")


def prune(
    job_dir: JobDir, spec: JobSpec, run_plan: RunPlan, *, suspicion: bool = False, ended: bool = False
) -> list[RetentionDecision]:
    """Delete the checkpoints that the spec does not keep, unless the newest one is invalid.

    A kill at any moment loses nothing: a milestone's adapter is linked before its checkpoint is deleted, and a
    checkpoint is renamed before it is deleted.

    Args:
        run_plan: checkpoints that a rollback left behind are deleted too.
        suspicion: the losses are suspicious, so nothing is deleted.
        ended: the run has ended, so no checkpoints are kept for a rollback.
    """
    fates = planned(job_dir, spec, run_plan, suspicion=suspicion, ended=ended)
    by_iteration = {checkpoint.iteration: checkpoint for checkpoint in storage.listed(job_dir.checkpoints)}
    for fate in fates:
        if fate.adapter_kept and not (milestone := _milestone(job_dir, fate.iteration)).exists():
            job_dir.adapters.mkdir(exist_ok=True)
            place(by_iteration[fate.iteration].adapters, milestone, link=True)
        if not fate.kept:
            storage.remove(by_iteration[fate.iteration].path)
    return fates


def planned(
    job_dir: JobDir, spec: JobSpec, run_plan: RunPlan, *, suspicion: bool = False, ended: bool = False
) -> list[RetentionDecision]:
    """Return the fates as `prune` does, without deleting; empty if the newest checkpoint is invalid."""
    newest, bad = storage.newest_valid(job_dir.checkpoints, run_plan)
    if newest is None or bad:
        return []
    facts, left_behind = [], []
    for checkpoint in storage.listed(job_dir.checkpoints):
        with suppress(CheckpointInvalid):
            if storage.is_on(run_plan, checkpoint):
                loss = checkpoint.state().validation_loss
                facts.append(CheckpointFact(iteration=checkpoint.iteration, validation_loss=loss))
            elif not suspicion:
                left_behind.append(checkpoint.iteration)
    kept = plan(facts, spec=spec, run_plan=run_plan, adapters=kept_adapters(job_dir), suspicion=suspicion, ended=ended)
    deleted = [
        RetentionDecision(iteration=iteration, kept=False, adapter_kept=False, because="left behind by a rollback")
        for iteration in left_behind
    ]
    return sorted([*kept, *deleted], key=lambda fate: fate.iteration)


def forget_beyond(job_dir: JobDir, iteration: int) -> None:
    """Delete the milestones after the iteration that a rollback returned to."""
    for kept in kept_adapters(job_dir):
        if kept > iteration:
            _milestone(job_dir, kept).unlink(missing_ok=True)


def kept_adapters(job_dir: JobDir) -> set[int]:
    """Return the iterations with an adapter under MLX-LM's numbered names in the job's adapters/."""
    paths = job_dir.adapters.glob("*_adapters.safetensors")
    return {int(match[1]) for path in paths if (match := _NUMBERED.fullmatch(path.name))}


def _milestone(job_dir: JobDir, iteration: int) -> Path:
    return job_dir.adapters / f"{iteration:07d}_adapters.safetensors"
