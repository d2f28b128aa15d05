"""What old jobs leave behind, deleted when the user asks for it. A job's row, report and job file stay for ever.

Nothing of a live job is touched, nothing outside the jobs folder, and nothing that was published to an adapter_path.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from jobs.model.errors import LqError, NotAllowed
from jobs.model.job import Job
from jobs.model.job_dir import JobDir
from jobs.model.states import ENDED
from orchestrator.core.app import App
from orchestrator.maintenance.prune import asked_for, weighed
from workers.checkpoints import publishing
from workers.process.lock import holder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cleaning:
    """What goes of one job."""

    job: Job
    paths: tuple[Path, ...]
    bytes: int  # that the disk gets back
    only_adapter: bool  # the finished adapter goes, and lies nowhere else


def old_jobs(app: App, *, older_than_s: float, now: float) -> list[Job]:
    """Return the jobs that ended longer ago than this, oldest first.

    Args:
        app: the store.
        older_than_s: seconds.
        now: unix seconds.
    """
    ended = [job for job in app.store.jobs.overview(all_jobs=True) if job.status in ENDED and job.ended_at is not None]
    old = [job for job in ended if now - (job.ended_at or now) >= older_than_s]
    return sorted(old, key=lambda job: (job.ended_at or 0.0, job.id))


def planned(app: App, job: Job, *, keep_adapters: bool) -> Cleaning:
    """Say what would go of a job that has ended; nothing is changed.

    Args:
        app: the home.
        job: ended.
        keep_adapters: leave its adapters/ alone.

    Raises:
        NotAllowed: it has not ended, a trainer works there, or its folder does not lie in the jobs folder.
    """
    job_dir = job.dir
    _require_cleanable(app, job, job_dir)
    stay = {job_dir.config, job_dir.provenance, job_dir.run_plan, job_dir.report}
    if keep_adapters:
        stay.add(job_dir.adapters)
    present = sorted(job_dir.path.iterdir()) if job_dir.path.is_dir() else []
    going = tuple(path for path in present if path not in stay)
    return Cleaning(
        job=job,
        paths=going,
        bytes=_freed(present, going),
        only_adapter=job_dir.adapters in going and _is_only_adapter(app, job, job_dir),
    )


def carry_out(app: App, job: Job, *, keep_adapters: bool) -> Cleaning:
    """Delete what goes. The job is marked first, so that nobody retries it meanwhile.

    Raises:
        NotAllowed: as `planned`; or it was retried a moment ago.
        LqError: something could not be deleted.
    """
    plan = planned(app, job, keep_adapters=keep_adapters)
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
        raise NotAllowed(f"job {job.id}: a trainer still works in {job_dir.path}; try again in a minute")


def _freed(present: Sequence[Path], going: Sequence[Path]) -> int:
    """Return the bytes the disk gets back: of a file with several names only where all of them go."""
    named = [(path, path not in going, "") for path in present]
    return sum(entry.bytes for entry in weighed(named) if not entry.kept)


def _is_only_adapter(app: App, job: Job, job_dir: JobDir) -> bool:
    """Say whether the finished adapter lies nowhere else, unchanged."""
    finished = job_dir.adapters / publishing.BEST
    if not finished.exists():
        return False
    named = asked_for(app, job.id)[0].adapter_path
    return named is None or publishing.sha256_of(Path(named) / publishing.BEST) != publishing.sha256_of(finished)
