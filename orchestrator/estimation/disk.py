"""The disk space that runs need, compared with the space that is free, before they are queued."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from jobs.estimates.disk import SpaceNeed, disk_need
from jobs.model.errors import InvalidInput
from jobs.model.spec import JobSpec
from jobs.policies.disk import required_free
from orchestrator.core.app import App
from orchestrator.formatting.text import size
from orchestrator.model_files import files as model_files
from workers.system import disk

RECORDED = "disk"  # the key of provenance.json with a job's need; later submits count it


def need_of(spec: JobSpec, *, valid_rows: int) -> SpaceNeed:
    """Estimate the space of a run from the headers of the model's files; the weights are not read."""
    arrays = None
    files = model_files.read(spec.model)
    if files is not None:
        with suppress(ValueError, KeyError, TypeError):
            arrays = files.arrays(spec)
    return disk_need(spec, arrays, valid_rows=valid_rows)


def require_space(app: App, jobs: Sequence[tuple[Path, SpaceNeed]]) -> None:
    """Refuse jobs, each a job file and its need, that leave too little space for themselves or for live jobs.

    Raises:
        InvalidInput: there is too little space; the text has the numbers.
    """
    for (source, _), shortage in zip(jobs, shortages(app, [need for _, need in jobs]), strict=True):
        if shortage is not None:
            raise InvalidInput(f"{source}: {shortage}")


def shortages(app: App, needs: Sequence[SpaceNeed], *, queued: Collection[int] = ()) -> list[str | None]:
    """Return for each job why there is too little space for it after the ones before it; None if there is enough.

    `queued` has the ids of live jobs whose needs are among these.
    """
    free, others = free_for(app), promised(app, without=queued)
    floor = app.settings().disk.floor
    texts = []
    for need in needs:
        reserve = required_free(checkpoint=need.checkpoint, floor=floor)
        enough = need.total + reserve <= free - sum(others)
        texts.append(None if enough else _shortage(need, reserve, free, others))
        others.append(need.total)
    return texts


def free_for(app: App) -> int:
    """Return the free bytes of the disk that jobs are written to."""
    folder = next(path for path in (app.home.jobs, *app.home.jobs.parents) if path.exists())
    return shutil.disk_usage(folder).free


def recorded(need: SpaceNeed) -> dict[str, int]:
    return {"bytes": need.total, "checkpoint_bytes": need.checkpoint, "checkpoints": need.checkpoints}


def unknown(need: SpaceNeed) -> str | None:
    """Return a note for the user if the need is not wholly known."""
    if need.adapter is not None:
        return None
    return "disk: the model's files are not on this machine yet, so the size of its checkpoints is unknown"


def _shortage(need: SpaceNeed, reserve: int, free: int, others: Sequence[int]) -> str:
    parts = [f"logs of {size(need.log)}"]
    if need.adapters and need.adapter:
        parts.insert(0, f"{need.adapters} adapters of {size(need.adapter)}")
    if need.checkpoint:
        parts.insert(0, f"{need.checkpoints} checkpoints of {size(need.checkpoint)}")
    claimed = f", of which {len(others)} other jobs may take {size(sum(others))}" if others else ""
    return (
        f"the run may take {size(need.total)} ({', '.join(parts)}) and {size(reserve)} must stay free, "
        f"but {size(free)} are free{claimed}; make room (lq prune --all, lq clean), or lower lq.keep, "
        "or disk.floor in settings.yaml"
    )


def promised(app: App, *, without: Collection[int] = ()) -> list[int]:
    """Return the bytes that each live job may still take, by the estimate that was recorded when it was submitted."""
    remaining = []
    live = app.store.jobs.overview(ended=0) if app.home.store.exists() else []
    for job in (job for job in live if job.id not in without):
        with suppress(OSError, ValueError, KeyError, TypeError):
            whole = int(json.loads(job.dir.provenance.read_text())[RECORDED]["bytes"])
            remaining.append(max(0, whole - disk.used_by(job.dir.path)))
    return remaining
