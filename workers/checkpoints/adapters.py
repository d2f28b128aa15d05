"""Publishes the finished adapter in MLX-LM's layout, so that every MLX-LM command loads it. No mlx.

adapters.safetensors is the best checkpoint by validation (without validations, the last one), and
final_adapters.safetensors is the last one. lq.json has the iteration and the sha256 of each.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path

from jobs.model.errors import CheckpointInvalid
from jobs.model.events import finite
from jobs.model.job_dir import JobDir
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from workers.checkpoints import storage
from workers.checkpoints.mlx_config import mlx_config
from workers.checkpoints.publishing import ABOUT, BEST, CONFIG, FINAL, copy_to, sha256_of
from workers.checkpoints.storage import Checkpoint
from workers.files.atomic import fsync_file, write_json

VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """A published adapter."""

    folder: Path
    best: int  # iteration of adapters.safetensors
    final: int  # iteration of final_adapters.safetensors
    copied_to: Path | None  # adapter_path; None if the job has none
    set_aside: Path | None  # where the previous content of adapter_path was moved
    bad: tuple[str, ...] = ()  # errors of invalid checkpoints


def publish(job_dir: JobDir, spec: JobSpec, run_plan: RunPlan, *, job_id: int, until: int | None = None) -> Published:
    """Publish the best and the final weights; publishing twice changes nothing.

    Args:
        job_id: written to lq.json, with the job's folder, so that a later publication recognizes its own files.
        until: last iteration that may be published, if the run should have ended earlier; None for no limit.

    Raises:
        CheckpointInvalid: no checkpoint is valid.
    """
    by = "lq while it published the adapter"
    final, bad = storage.newest_valid(job_dir.checkpoints, run_plan, until=until, set_aside_by=by)
    if final is None:
        raise CheckpointInvalid(
            f"{job_dir.checkpoints} holds no valid checkpoint" + "".join(f"; {text}" for text in bad)
        )
    best, worse = storage.best_valid(job_dir.checkpoints, run_plan, until=until, set_aside_by=by)
    best = best or final
    folder, config = job_dir.adapters, mlx_config(spec, run_plan.stages[-1])
    folder.mkdir(exist_ok=True)
    place(final.adapters, folder / FINAL, link=True)
    place(best.adapters, folder / BEST, link=True)
    write_json(folder / CONFIG, config)
    hashes = {
        BEST: best.sha256(storage.ADAPTERS),
        FINAL: final.sha256(storage.ADAPTERS),
        CONFIG: sha256_of(folder / CONFIG),
    }
    about = {
        "version": VERSION,
        "job": job_id,
        "job_dir": str(job_dir.path),
        "best": _about(best),
        "final": _about(final),
        "why": _why(best, final, until),
        "files": hashes,
    }
    write_json(folder / ABOUT, about)
    target = Path(spec.adapter_path) if spec.adapter_path is not None else None
    set_aside = copy_to(target, job_dir, job_id=job_id) if target is not None else None
    return Published(
        folder=folder,
        best=best.iteration,
        final=final.iteration,
        copied_to=target,
        set_aside=set_aside,
        bad=(*bad, *worse),
    )


def _why(best: Checkpoint, final: Checkpoint, until: int | None) -> str:
    """Return one line about which checkpoints were published."""
    loss, last = (checkpoint.state().validation_loss for checkpoint in (best, final))
    which = f"{FINAL} holds the last weights, of iteration {final.iteration:,}"
    if until is not None:
        which += f"; nothing after iteration {until:,} is published"
    if loss is None:
        return f"no checkpoint was validated, so {BEST} has the last weights; {which}"
    if best.iteration == final.iteration:
        return f"{BEST}: the lowest validation loss of all checkpoints, {loss:.4f}, is the last one; {which}"
    at_end = f" ({last:.4f} at the end)" if last is not None else ""
    lowest = f"the lowest validation loss of all checkpoints, {loss:.4f} at iteration {best.iteration:,}{at_end}"
    return f"{BEST}: {lowest}; {which}"


def _about(checkpoint: Checkpoint) -> dict[str, object]:
    validation = checkpoint.state().validation
    loss = finite(validation.loss) if validation is not None else None
    return {"iteration": checkpoint.iteration, "validation_loss": loss}


def place(source: Path, target: Path, *, link: bool) -> None:
    """Create or replace a file atomically: a hard link if `link` is set and links work, else a copy."""
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        if not link:
            raise OSError
        os.link(source, partial)
    except OSError:
        shutil.copyfile(source, partial)
        fsync_file(partial)
    partial.replace(target)
    partial.unlink(missing_ok=True)  # POSIX rename has no effect on two links to the same file
