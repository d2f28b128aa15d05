"""Carries out a retention plan: milestones become adapters in MLX-LM's layout, the rest goes, oldest first. No mlx."""

from __future__ import annotations

import re
import shutil

from jobs.course import Course
from jobs.errors import CheckpointInvalid
from jobs.retention import CheckpointFact, Fate, plan
from jobs.spec import JobSpec
from workers import checkpoints
from workers.adapters import place
from workers.checkpoints import Checkpoint
from workers.job_dir import JobDir

_NUMBERED = re.compile(r"(\d{7,})_adapters\.safetensors")


def prune(job_dir: JobDir, spec: JobSpec, course: Course) -> list[Fate]:
    """Delete what need not stay; nothing goes unless the newest checkpoint verifies.

    Killed at any moment it loses nothing: a milestone's adapter is linked before its checkpoint goes, and a checkpoint
    that goes loses its name first.

    Args:
        job_dir: the job's folder.
        spec: what is to be kept.
        course: a checkpoint that a later leg left behind goes too.

    Returns:
        What became of each checkpoint on the course.
    """
    newest, bad = checkpoints.newest_valid(job_dir.checkpoints, course)
    if newest is None or bad:
        return []
    there = {checkpoint.iteration: checkpoint for checkpoint in checkpoints.listed(job_dir.checkpoints)}
    facts = [fact for checkpoint in there.values() if (fact := _fact(checkpoint, course)) is not None]
    fates = plan(facts, adapters=kept_adapters(job_dir), keep=spec.lq.keep, iters=spec.iters)
    for fate in fates:
        if fate.adapter_kept:
            _keep_adapter(job_dir, there[fate.iteration])
        if not fate.kept:
            _remove(there[fate.iteration])
    return fates


def kept_adapters(job_dir: JobDir) -> set[int]:
    """Return the iterations whose adapters lie in the job's adapters/ under MLX-LM's numbered names."""
    found = job_dir.adapters.glob("*_adapters.safetensors")
    return {int(match[1]) for path in found if (match := _NUMBERED.fullmatch(path.name))}


def _fact(checkpoint: Checkpoint, course: Course) -> CheckpointFact | None:
    try:
        if not checkpoints.is_on(course, checkpoint):
            return None
        loss = (checkpoint.state().get("validation") or {}).get("loss")
    except CheckpointInvalid:
        return None
    return CheckpointFact(iteration=checkpoint.iteration, validation_loss=loss if isinstance(loss, float) else None)


def _keep_adapter(job_dir: JobDir, checkpoint: Checkpoint) -> None:
    job_dir.adapters.mkdir(exist_ok=True)
    target = job_dir.adapters / f"{checkpoint.iteration:07d}_adapters.safetensors"
    if not target.exists():
        place(checkpoint.adapters, target, link=True)


def _remove(checkpoint: Checkpoint) -> None:
    doomed = checkpoint.path.with_name(f".{checkpoint.path.name}.pruned")
    checkpoint.path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def planned(job_dir: JobDir, spec: JobSpec, course: Course) -> list[Fate]:
    """Decide as `prune` does, and delete nothing. Empty where the newest checkpoint does not verify."""
    newest, bad = checkpoints.newest_valid(job_dir.checkpoints, course)
    if newest is None or bad:
        return []
    found = checkpoints.listed(job_dir.checkpoints)
    facts = [fact for checkpoint in found if (fact := _fact(checkpoint, course)) is not None]
    return plan(facts, adapters=kept_adapters(job_dir), keep=spec.lq.keep, iters=spec.iters)
