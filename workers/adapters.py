"""The finished adapter in MLX-LM's own layout, so that every MLX-LM command loads it. No mlx.

adapters.safetensors is the best checkpoint by validation (the last one where nothing was validated),
final_adapters.safetensors the last one. lq.json says which is which.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

from jobs.course import Course
from jobs.errors import CheckpointInvalid
from jobs.spec import JobSpec
from workers import checkpoints
from workers.checkpoints import Checkpoint
from workers.files import fsync_file, write_json
from workers.job_dir import JobDir
from workers.mlx_names import mlx_config

VERSION = 1
BEST, FINAL, CONFIG, ABOUT = "adapters.safetensors", "final_adapters.safetensors", "adapter_config.json", "lq.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """What was published, and where."""

    folder: Path
    best: int  # iteration of adapters.safetensors
    final: int  # iteration of final_adapters.safetensors
    copied_to: Path | None  # adapter_path, where the job names one
    set_aside: Path | None  # what lay in adapter_path before


def publish(job_dir: JobDir, spec: JobSpec, course: Course, *, job_id: int, until: int | None = None) -> Published:
    """Publish best and final weights; doing it twice changes nothing.

    Args:
        job_dir: the job's folder.
        spec: what was asked for.
        course: the legs; its last one is what the run ended under.
        job_id: goes into lq.json, beside the job's folder, by which a later publication knows its own files.
        until: nothing beyond this iteration is published: where the run should have ended; None for no limit.

    Raises:
        CheckpointInvalid: no checkpoint verifies.
    """
    final, bad = checkpoints.newest_valid(job_dir.checkpoints, course, until=until)
    if final is None:
        raise CheckpointInvalid(
            f"{job_dir.checkpoints} holds no valid checkpoint" + "".join(f"; {text}" for text in bad)
        )
    best = checkpoints.best_valid(job_dir.checkpoints, course, until=until) or final
    own = {"job": job_id, "job_dir": str(job_dir.path)}
    why = _why(best, final, until)
    about = {"version": VERSION, **own, "best": _about(best), "final": _about(final), "why": why}
    leg = course.legs[-1]
    _lay_out(job_dir.adapters, best, final, mlx_config(spec, leg), about, link=True)
    target = Path(spec.adapter_path) if spec.adapter_path is not None else None
    set_aside = None
    if target is not None:
        set_aside = _make_room(target, job_id, job_dir)
        _lay_out(target, best, final, mlx_config(spec, leg), about, link=False)
    return Published(
        folder=job_dir.adapters, best=best.iteration, final=final.iteration, copied_to=target, set_aside=set_aside
    )


def _why(best: Checkpoint, final: Checkpoint, until: int | None) -> str:
    """Say in one line why these are the best and the last."""
    loss, last = (checkpoints.validation_loss(one.state()) for one in (best, final))
    which = f"{FINAL} holds the last weights, of iteration {final.iteration:,}"
    if until is not None:
        which += f"; nothing after iteration {until:,} is published"
    if loss is None:
        return f"no checkpoint was validated, so {BEST} is the last one; {which}"
    if best.iteration == final.iteration:
        return f"{BEST}: the lowest validation loss of all checkpoints, {loss:.4f}, was the last; {which}"
    beside = f", against {last:.4f} at the end" if last is not None else ""
    return f"{BEST}: the lowest validation loss of all checkpoints, {loss:.4f} at {best.iteration:,}{beside}; {which}"


def _about(checkpoint: Checkpoint) -> dict[str, Any]:
    validation = checkpoint.state().get("validation") or {}
    return {"iteration": checkpoint.iteration, "validation_loss": validation.get("loss")}


def _lay_out(
    folder: Path, best: Checkpoint, final: Checkpoint, config: dict[str, Any], about: dict[str, Any], *, link: bool
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    place(final.adapters, folder / FINAL, link=link)
    place(best.adapters, folder / BEST, link=link)
    write_json(folder / CONFIG, config)
    write_json(folder / ABOUT, about)


def place(source: Path, target: Path, *, link: bool) -> None:
    """Put a file there all at once: a hard link where that works and is wanted, else a copy."""
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
    partial.unlink(missing_ok=True)  # renaming one of two links to the same file over the other does nothing (POSIX)


def _make_room(folder: Path, job_id: int, job_dir: JobDir) -> Path | None:
    """Keep an adapter that another run left there under another name; return that name."""
    present = folder / BEST
    if not present.exists() or _origin(folder) == str(job_dir.path):
        return None
    aside = folder / f"before-job-{job_id}"
    aside.mkdir(exist_ok=True)
    for name in (BEST, FINAL, CONFIG, ABOUT):
        if (folder / name).exists():
            (folder / name).replace(aside / name)
    return aside


def _origin(folder: Path) -> str | None:
    """Return the job folder that a published adapter came from; ids alone are not unique across homes."""
    try:
        content = json.loads((folder / ABOUT).read_text())
    except (OSError, ValueError):
        return None
    return content.get("job_dir") if isinstance(content, dict) else None
