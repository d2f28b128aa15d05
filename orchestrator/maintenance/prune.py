"""Lists the files of a job folder that retention does not keep, with their bytes, and deletes them.

The rule is in jobs/policies/retention.py.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from jobs.model.errors import LqError
from jobs.model.job import Job
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.policies.retention import RetentionDecision
from orchestrator.core.app import App
from orchestrator.submission.provenance import train_rows
from orchestrator.worker.loss_guard import LossGuard
from workers.checkpoints import pruning, storage
from workers.checkpoints.storage import ADAPTERS
from workers.files.job_dir import JobDir
from workers.process.lock import holder, sole

WAIT_S = 10.0
"""For the worker, where it deletes in the same folder just now."""

BAD_NEWEST = "nothing goes while a newer one does not verify; set that aside with: lq verify {id} --set-aside"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One checkpoint or adapter."""

    path: Path
    bytes: int  # on the disk; a file with two names counts once, and where one name stays, it counts there
    kept: bool
    because: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tidying:
    """What becomes of what lies in one job's folder."""

    job: Job
    entries: tuple[Entry, ...]

    @property
    def going(self) -> tuple[Entry, ...]:
        """What goes, oldest first."""
        return tuple(entry for entry in self.entries if not entry.kept)

    @property
    def freed(self) -> int:
        """Bytes that the disk gets back."""
        return sum(entry.bytes for entry in self.going)


def planned(app: App, job: Job) -> Tidying:
    """Say what would go, and why the rest stays; nothing is changed.

    Args:
        app: the store.
        job: in any state; one that runs is pruned by its worker too, by the same rule.
    """
    job_dir = JobDir(Path(job.job_dir))
    spec, run_plan = asked_for(app, job.id)
    fates = pruning.planned(job_dir, spec, run_plan, **_state(app, job, spec, run_plan))
    named = [*_checkpoints(job, job_dir, fates), *_set_aside(job_dir, fates), *_leftovers(job_dir), *_adapters(job_dir)]
    kept = pruning.kept_adapters(job_dir)
    milestones = [
        _checkpoint(job_dir, fate) / ADAPTERS for fate in fates if fate.adapter_kept and fate.iteration not in kept
    ]
    return Tidying(job=job, entries=tuple(weighed(named, staying=milestones)))


def carry_out(app: App, job: Job) -> Tidying:
    """Delete what goes; say what did.

    Raises:
        LqError: something else deletes there and does not come to an end.
    """
    job_dir = JobDir(Path(job.job_dir))
    if not job_dir.checkpoints.is_dir():
        return planned(app, job)
    with sole(job_dir.checkpoints, wait_s=WAIT_S) as mine:
        if not mine:
            raise LqError(f"job {job.id}: something else deletes in {job_dir.checkpoints}; try again in a minute")
        plan = planned(app, job)
        try:
            _delete(app, plan)
        except OSError as error:
            raise LqError(f"job {job.id}: {error.filename} cannot be deleted: {error.strerror}") from error
    found = ((entry, entry.path.exists()) for entry in plan.entries)
    return dataclasses.replace(
        plan, entries=tuple(dataclasses.replace(entry, kept=there) for entry, there in found if entry.kept or not there)
    )


def _delete(app: App, plan: Tidying) -> None:
    job_dir = JobDir(Path(plan.job.job_dir))
    spec, run_plan = asked_for(app, plan.job.id)
    pruning.prune(job_dir, spec, run_plan, **_state(app, plan.job, spec, run_plan))
    for aside in storage.listed_bad(job_dir.checkpoints):
        if any(entry.path == aside for entry in plan.going):
            storage.remove(aside)
    if _unattended(job_dir):
        storage.sweep(job_dir.checkpoints)


def _state(app: App, job: Job, spec: JobSpec, run_plan: RunPlan) -> dict[str, bool]:
    """Return what the rule wants to know of a job: nothing goes while its loss is under suspicion."""
    ended = job.status is Status.SUCCEEDED
    losses = LossGuard(app.store, job, spec, run_plan, train_rows=train_rows(job))
    losses.look()
    return {"suspicion": losses.in_doubt and not ended, "ended": ended}


def asked_for(app: App, job_id: int) -> tuple[JobSpec, RunPlan]:
    """Return what a job asked for, and its run plan so far."""
    spec = JobSpec.model_validate_json(app.store.jobs.spec_json(job_id))
    return spec, app.store.run_plans.get(job_id, spec)


Named = tuple[Path, bool, str]
"""Path, whether it stays, why."""


def weighed(named: Sequence[Named], *, staying: Iterable[Path] = ()) -> Iterator[Entry]:
    """Give each its bytes.

    Args:
        named: what there is.
        staying: files in what goes that get another name before.
    """
    files = {path: list(_files(path)) for path, _, _ in named}
    going = Counter(_inode(found) for path, kept, _ in named if not kept for found in files[path])
    seen = {_inode(path.lstat()) for path in staying if path.exists()}
    sizes: dict[Path, int] = {}
    for path, kept, _ in sorted(named, key=lambda one: not one[1]):  # what stays is counted first
        new = {_inode(found): found for found in files[path] if _inode(found) not in seen}
        seen |= set(new)
        sizes[path] = sum(found.st_size for inode, found in new.items() if kept or going[inode] == found.st_nlink)
    for path, kept, because in named:
        shared = "" if sizes[path] or not kept else "; the same file as another that stays"
        yield Entry(path=path, bytes=sizes[path], kept=kept, because=because + shared)


def _files(path: Path) -> Iterator[os.stat_result]:
    """Yield the files at or below a path; one that goes meanwhile is not there."""
    for below in [path] if path.is_file() else path.rglob("*"):
        with suppress(OSError):
            if below.is_file() and not below.is_symlink():
                yield below.lstat()


def _inode(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _checkpoint(job_dir: JobDir, fate: RetentionDecision) -> Path:
    return job_dir.checkpoints / f"step-{fate.iteration:07d}"


def _checkpoints(job: Job, job_dir: JobDir, fates: Sequence[RetentionDecision]) -> Iterator[Named]:
    decided = {_checkpoint(job_dir, fate): fate for fate in fates}
    for found in storage.listed(job_dir.checkpoints):
        fate = decided.get(found.path)
        if fate is not None:
            yield found.path, fate.kept, fate.because
        else:
            yield found.path, True, "not on the run plan" if fates else BAD_NEWEST.format(id=job.id)


def _set_aside(job_dir: JobDir, fates: Sequence[RetentionDecision]) -> Iterator[Named]:
    """Bad checkpoints are looked at as long as no good one has taken their place."""
    for path in storage.listed_bad(job_dir.checkpoints):
        yield path, not fates, f"set aside: {storage.why(path)}"


def _leftovers(job_dir: JobDir) -> Iterator[Named]:
    if _unattended(job_dir):
        for path in storage.leftovers(job_dir.checkpoints):
            yield path, False, "left by a process that was killed"


def _unattended(job_dir: JobDir) -> bool:
    """Say whether no trainer writes there now."""
    return holder(job_dir.lock) is None


def _adapters(job_dir: JobDir) -> Iterator[Named]:
    milestones = pruning.kept_adapters(job_dir)
    for path in sorted(job_dir.adapters.glob("*.safetensors")):
        milestone = any(path.name.startswith(f"{iteration:07d}_") for iteration in milestones)
        yield path, True, "a milestone" if milestone else "the finished adapter"
