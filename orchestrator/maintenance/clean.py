"""Delete the files of jobs that have ended. The row of a job, its report and its job file stay.

Nothing of a live job is deleted, nothing outside the jobs folder, and nothing in an adapter_path.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.model.errors import LqError, NotAllowed
from jobs.model.job import Job
from jobs.model.job_dir import JobDir
from jobs.model.states import ENDED, Status
from orchestrator.core.app import App
from orchestrator.maintenance.prune import with_sizes
from workers.checkpoints import publishing
from workers.process.lock import holder


@dataclass(frozen=True, kw_only=True)
class CleanedJob:
    """The files of a job that are deleted."""

    id: int
    name: str
    status: Status
    ended_at: float | None  # unix seconds
    bytes: int  # disk space freed
    paths: tuple[Path, ...]  # deleted files and folders, absolute
    only_adapter: bool  # the finished adapter is deleted and no copy of it exists


def old_jobs(app: App, *, older_than_s: float, now: float) -> list[Job]:
    """Return the jobs that ended more than this many seconds ago, oldest first."""
    ended = [job for job in app.store.jobs.overview(all_jobs=True) if job.status in ENDED and job.ended_at is not None]
    old = [job for job in ended if now - (job.ended_at or now) >= older_than_s]
    return sorted(old, key=lambda job: (job.ended_at or 0.0, job.id))


def plan_clean(app: App, job: Job, *, keep_adapters: bool) -> CleanedJob:
    """Return what `clean_job` would delete.

    Raises:
        NotAllowed: the job has not ended, a trainer still runs, or its folder is not in the jobs folder.
    """
    job_dir = job.dir
    _require_cleanable(app, job, job_dir)
    kept = {job_dir.config, job_dir.provenance, job_dir.run_plan, job_dir.report}
    if keep_adapters:
        kept.add(job_dir.adapters)
    present = sorted(job_dir.path.iterdir()) if job_dir.path.is_dir() else []
    deleted = tuple(path for path in present if path not in kept)
    return CleanedJob(
        id=job.id,
        name=job.name,
        status=job.status,
        ended_at=job.ended_at,
        bytes=_freed(present, deleted),
        paths=deleted,
        only_adapter=job_dir.adapters in deleted and _is_only_adapter(app, job, job_dir),
    )


def clean_job(app: App, job: Job, *, keep_adapters: bool) -> CleanedJob:
    """Delete the files of a job. The store marks the job as cleaned first, so that it cannot be retried meanwhile.

    Raises:
        NotAllowed: as `plan_clean`, or the job was retried meanwhile.
        LqError: a file cannot be deleted.
    """
    plan = plan_clean(app, job, keep_adapters=keep_adapters)
    if not plan.paths:
        return plan
    app.store.jobs.mark_cleaned(job.id, time.time())
    for path in plan.paths:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise LqError(f"job {job.id}: {error.filename or path} cannot be deleted: {error.strerror}") from error
    return plan


def _require_cleanable(app: App, job: Job, job_dir: JobDir) -> None:
    if job.status not in ENDED:
        raise NotAllowed(f"job {job.id} is {job.status}; only jobs that have ended can be cleaned")
    inside = job_dir.path.parent == app.home.jobs and not job_dir.path.is_symlink()
    if job_dir.path.exists() and not inside:
        raise NotAllowed(f"job {job.id}: its folder {job_dir.path} is not in {app.home.jobs}; delete it yourself")
    if holder(job_dir.lock) is not None:
        raise NotAllowed(f"job {job.id}: a trainer still runs in {job_dir.path}; try again in a minute")


def _freed(present: Sequence[Path], deleted: Sequence[Path]) -> int:
    """Return the disk space freed. A file with several names is freed only if all of them are deleted."""
    named = [(path, path not in deleted, "") for path in present]
    return sum(entry.bytes for entry in with_sizes(named) if not entry.kept)


def _is_only_adapter(app: App, job: Job, job_dir: JobDir) -> bool:
    """Return whether adapter_path has no unchanged copy of the finished adapter."""
    finished = job_dir.adapters / publishing.BEST
    if not finished.exists():
        return False
    copy = app.store.spec(job.id).adapter_path
    return copy is None or publishing.sha256_of(Path(copy) / publishing.BEST) != publishing.sha256_of(finished)
