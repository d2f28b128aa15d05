"""Delete the checkpoints of a job that the retention policy does not keep, and leftovers of killed processes.

The policy is in jobs/policies/retention.py.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.model.errors import LqError
from jobs.model.job import Job
from jobs.model.job_dir import JobDir
from jobs.model.states import Status
from jobs.policies.retention import RetentionDecision
from orchestrator.core.app import App
from orchestrator.submission.provenance import train_rows
from orchestrator.worker.loss_guard import LossGuard
from workers.checkpoints import pruning, storage
from workers.checkpoints.storage import ADAPTERS
from workers.process.lock import holder, sole

WAIT_S = 10.0
"""How long to wait while the worker deletes files in the same folder."""

BAD_NEWEST = "kept while a newer checkpoint is damaged; rename that one with: lq verify {id} --set-aside"


@dataclass(frozen=True, kw_only=True)
class PrunedEntry:
    """A checkpoint, an adapter, or a leftover of a killed process."""

    path: Path  # absolute
    bytes: int  # disk space; a file with several names counts once, at a name that is kept if there is one
    kept: bool  # it is not deleted
    because: str  # why it is kept or deleted


@dataclass(frozen=True, kw_only=True)
class PrunedJob:
    """The entries of a job folder, and which of them are deleted."""

    id: int
    name: str
    bytes: int  # disk space freed
    entries: tuple[PrunedEntry, ...]

    @property
    def deleted(self) -> tuple[PrunedEntry, ...]:
        """The entries that are not kept, oldest first."""
        return tuple(entry for entry in self.entries if not entry.kept)


def plan_prune(app: App, job: Job) -> PrunedJob:
    """Return what `prune_job` would delete. The worker prunes a running job by the same rule."""
    job_dir = job.dir
    decisions = pruning.planned(job_dir, **_state(app, job))
    named = [
        *_checkpoints(job, job_dir, decisions),
        *((path, not decisions, f"set aside: {storage.why(path)}") for path in storage.listed_bad(job_dir.checkpoints)),
        *((path, False, "left by a killed process") for path in _leftovers(job_dir)),
        *_adapters(job_dir),
    ]  # damaged checkpoints stay until a good one exists
    published = pruning.kept_adapters(job_dir)
    new = [decision for decision in decisions if decision.adapter_kept and decision.iteration not in published]
    return _result(job, with_sizes(named, linked=[_path_of(job_dir, decision) / ADAPTERS for decision in new]))


def prune_job(app: App, job: Job) -> PrunedJob:
    """Delete what the policy does not keep, and return what was deleted.

    Raises:
        LqError: another process deletes files in the folder, or a file cannot be deleted.
    """
    job_dir = job.dir
    if not job_dir.checkpoints.is_dir():
        return plan_prune(app, job)
    with sole(job_dir.checkpoints, wait_s=WAIT_S) as acquired:
        if not acquired:
            raise LqError(
                f"job {job.id}: another process deletes files in {job_dir.checkpoints}; try again in a minute"
            )
        plan = plan_prune(app, job)
        try:
            _delete(app, job, plan)
        except OSError as error:
            raise LqError(f"job {job.id}: {error.filename} cannot be deleted: {error.strerror}") from error
    after = [replace(entry, kept=entry.path.exists()) for entry in plan.entries]
    return _result(job, [new for old, new in zip(plan.entries, after, strict=True) if old.kept or not new.kept])


def _result(job: Job, entries: Iterable[PrunedEntry]) -> PrunedJob:
    listed = tuple(entries)
    freed = sum(entry.bytes for entry in listed if not entry.kept)
    return PrunedJob(id=job.id, name=job.name, bytes=freed, entries=listed)


def _delete(app: App, job: Job, plan: PrunedJob) -> None:
    job_dir = job.dir
    pruning.prune(job_dir, **_state(app, job))
    planned = {entry.path for entry in plan.deleted}
    for path in planned.intersection(storage.listed_bad(job_dir.checkpoints)):
        storage.remove(path)
    if holder(job_dir.lock) is None:
        storage.sweep(job_dir.checkpoints)


def _state(app: App, job: Job) -> dict[str, Any]:
    """Return the arguments of the policy. It deletes nothing while the loss is suspicious."""
    spec, ended = app.store.spec(job.id), job.status is Status.SUCCEEDED
    run_plan = app.store.run_plans.get(job.id, spec)
    losses = LossGuard(app.store, job, spec, run_plan, train_rows=train_rows(job))
    losses.look()
    return {"spec": spec, "run_plan": run_plan, "suspicion": losses.in_doubt and not ended, "ended": ended}


NamedEntry = tuple[Path, bool, str]
"""Path, whether it is kept, why."""


def with_sizes(named: Sequence[NamedEntry], *, linked: Iterable[Path] = ()) -> Iterator[PrunedEntry]:
    """Add the disk space of each entry; `linked` files get a second name before their entry is deleted."""
    files = {path: list(_files(path)) for path, _, _ in named}
    names = Counter(_inode(file) for path, kept, _ in named if not kept for file in files[path])
    counted = {_inode(path.lstat()) for path in linked if path.exists()}
    sizes: dict[Path, int] = {}
    for path, kept, _ in sorted(named, key=lambda entry: not entry[1]):  # kept entries first
        new = {_inode(file): file for file in files[path] if _inode(file) not in counted}
        counted |= set(new)
        sizes[path] = sum(file.st_size for inode, file in new.items() if kept or names[inode] == file.st_nlink)
    for path, kept, because in named:
        shared = "" if sizes[path] or not kept else "; the same file as another kept entry"
        yield PrunedEntry(path=path, bytes=sizes[path], kept=kept, because=because + shared)


def _files(path: Path) -> Iterator[os.stat_result]:
    """Yield the files at or below a path, without those that disappear meanwhile."""
    for below in [path] if path.is_file() else path.rglob("*"):
        with suppress(OSError):
            if below.is_file() and not below.is_symlink():
                yield below.lstat()


def _inode(file: os.stat_result) -> tuple[int, int]:
    return file.st_dev, file.st_ino


def _path_of(job_dir: JobDir, decision: RetentionDecision) -> Path:
    return job_dir.checkpoints / f"step-{decision.iteration:07d}"


def _checkpoints(job: Job, job_dir: JobDir, decisions: Sequence[RetentionDecision]) -> Iterator[NamedEntry]:
    by_path = {_path_of(job_dir, decision): decision for decision in decisions}
    for checkpoint in storage.listed(job_dir.checkpoints):
        decision = by_path.get(checkpoint.path)
        if decision is not None:
            yield checkpoint.path, decision.kept, decision.because
        else:
            yield checkpoint.path, True, "not on the run plan" if decisions else BAD_NEWEST.format(id=job.id)


def _leftovers(job_dir: JobDir) -> Sequence[Path]:
    return storage.leftovers(job_dir.checkpoints) if holder(job_dir.lock) is None else ()


def _adapters(job_dir: JobDir) -> Iterator[NamedEntry]:
    milestones = pruning.kept_adapters(job_dir)
    for path in sorted(job_dir.adapters.glob("*.safetensors")):
        milestone = any(path.name.startswith(f"{iteration:07d}_") for iteration in milestones)
        yield path, True, "milestone" if milestone else "finished adapter"
