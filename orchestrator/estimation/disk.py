"""The disk a run needs against the disk there is, before it is queued."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from jobs.estimates.disk import Need, need
from jobs.model.errors import InvalidInput
from jobs.model.spec import JobSpec
from orchestrator.core.app import App
from orchestrator.estimation import model_files
from orchestrator.formatting.text import size
from workers.system import disk

RECORDED = "disk"
"""In provenance.json: what the job may take, for those that are submitted after it."""


def need_of(spec: JobSpec, *, valid_rows: int) -> Need:
    """Reckon what a run takes, from the headers of the model's files; its weights are not read.

    Args:
        spec: what is asked for.
        valid_rows: rows of the validation set.
    """
    arrays = None
    files = model_files.read(spec.model)
    if files is not None:
        with suppress(ValueError, KeyError, TypeError):
            arrays = files.arrays(spec)
    return need(spec, arrays, valid_rows=valid_rows)


def require_space(app: App, jobs: Sequence[tuple[Path, Need]]) -> None:
    """Refuse jobs for which there is not enough space, beside what the live ones may still take.

    Args:
        app: the home, its live jobs, and what its settings want free.
        jobs: job file and need of each that is to be queued.

    Raises:
        InvalidInput: there is too little; with the numbers.
    """
    for (source, _), shortage in zip(jobs, shortages(app, [wanted for _, wanted in jobs]), strict=True):
        if shortage is not None:
            raise InvalidInput(f"{source}: {shortage}")


def shortages(app: App, needs: Sequence[Need], *, queued: Collection[int] = ()) -> list[str | None]:
    """Return for each job why there is too little space for it, after those before it; None where there is enough.

    Args:
        app: the home, its live jobs, and what its settings want free.
        needs: of each job.
        queued: ids of live jobs whose needs are among these.
    """
    free, others = free_for(app), promised(app, without=queued)
    floor = app.settings().disk.floor
    found = []
    for wanted in needs:
        stays = max(floor, disk.CHECKPOINTS_AHEAD * wanted.checkpoint)
        enough = wanted.total + stays <= free - sum(others)
        found.append(None if enough else _too_little(wanted, stays, free, others))
        others.append(wanted.total)
    return found


def free_for(app: App) -> int:
    """Return the free bytes of the disk that jobs are written to."""
    return shutil.disk_usage(_existing(app.home.jobs)).free


def recorded(wanted: Need) -> dict[str, int]:
    """Return what provenance.json says of it."""
    return {"bytes": wanted.total, "checkpoint_bytes": wanted.checkpoint, "checkpoints": wanted.checkpoints}


def unknown(wanted: Need) -> str | None:
    """Return what the user should know where the need is not wholly known."""
    if wanted.adapter is not None:
        return None
    return "disk: the model's files are not on this machine yet, so what its checkpoints will take is not known"


def _too_little(wanted: Need, stays: int, free: int, others: Sequence[int]) -> str:
    parts = [f"logs of {size(wanted.log)}"]
    if wanted.adapters and wanted.adapter:
        parts.insert(0, f"{wanted.adapters} adapters of {size(wanted.adapter)}")
    if wanted.checkpoint:
        parts.insert(0, f"{wanted.checkpoints} checkpoints of {size(wanted.checkpoint)}")
    claimed = f", of which {len(others)} other jobs may take {size(sum(others))}" if others else ""
    return (
        f"the run may take {size(wanted.total)} ({', '.join(parts)}) and {size(stays)} must stay free, "
        f"but {size(free)} are free{claimed}; make room (lq prune --all, lq clean), or lower lq.keep, "
        "or disk.floor in settings.yaml"
    )


def promised(app: App, *, without: Collection[int] = ()) -> list[int]:
    """Return what each live job may still take, by what was reckoned when it was submitted."""
    found = []
    live = app.store.jobs.overview(ended=0) if app.home.store.exists() else []
    for job in (job for job in live if job.id not in without):
        job_dir = job.dir
        with suppress(OSError, ValueError, KeyError, TypeError):
            whole = int(json.loads(job_dir.provenance.read_text())[RECORDED]["bytes"])
            found.append(max(0, whole - disk.used_by(job_dir.path)))
    return found


def _existing(path: Path) -> Path:
    return next(place for place in (path, *path.parents) if place.exists())
