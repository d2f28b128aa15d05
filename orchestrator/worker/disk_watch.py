"""Watches what a trainer needs on the disk: its folder, its event log, free space.

The worker calls it several times a second while the trainer runs; a file watch may bring a check forward.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from jobs.model.job_dir import JobDir
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.spec import JobSpec
from jobs.policies.disk import CHECK_EVERY_S, DiskSpace, keep_least
from orchestrator.core.app import App
from orchestrator.formatting.text import size
from orchestrator.worker.log_rotation import cap_logs
from workers.system import disk

FOLDER_GONE_GRACE_S = 5.0  # seconds a trainer may take to stop if its folder is gone: it cannot write a checkpoint

log = logging.getLogger("lq.disk")


class DiskWatch:
    def __init__(self, app: App, job_dir: JobDir, spec: JobSpec, prune: Callable[[JobSpec], None]) -> None:
        """Start before the trainer does; `prune` deletes the checkpoints that a spec does not keep."""
        self._app, self._job_dir, self._spec, self._prune = app, job_dir, spec, prune
        self._log_existed = False
        self._checked_at = float("-inf")
        self.folder_gone = False
        self.log_deleted: str | None = None  # why lq no longer receives the trainer's events
        self.disk_low: str | None = None  # why there is too little space
        self.evidence: dict[str, int] = {}  # the numbers behind `disk_low`

    def check(self) -> str | None:
        """Return why the trainer must stop; None if it may continue."""
        gone = folder_gone_ending(self._job_dir)
        if gone is not None:
            self.folder_gone = True
            return gone.detail
        exists = self._job_dir.events.exists()
        self._log_existed = self._log_existed or exists
        if self._log_existed and not exists:
            self.log_deleted = f"{self._job_dir.events} was deleted, so lq no longer receives the trainer's events"
        if time.monotonic() - self._checked_at >= CHECK_EVERY_S:
            self._checked_at = time.monotonic()
            cap_logs(self._job_dir)
            self._check_space()
        return self.log_deleted or self.disk_low

    def _check_space(self) -> None:
        floor = floor_of(self._app)
        space = disk.space_for(self._job_dir, floor=floor)
        if space is None or space.enough:
            return
        log.warning("%s: %s; lq keeps only the newest and the best checkpoint", self._job_dir.path, _low_space(space))
        self._prune(keep_least(self._spec))
        space = disk.space_for(self._job_dir, floor=floor)
        if space is not None and not space.enough:
            self.disk_low, self.evidence = _low_space(space), space.evidence


def floor_of(app: App) -> int:
    """Return the bytes that must stay free on this machine; the default if settings.yaml is invalid."""
    from configs.settings import DiskSettings

    settings = app.valid_settings()
    return (settings.disk if settings is not None else DiskSettings()).floor


def folder_gone_ending(job_dir: JobDir) -> Ending | None:
    """Return the ending of an attempt whose folder is gone; None if the folder exists.

    The folder counts as gone without its config file: deleting a folder that a trainer writes to leaves parts of it.
    """
    if job_dir.config.exists():
        return None
    text = f"the job's folder {job_dir.path} or its config.yaml was deleted or moved; "
    text += "restore it and retry, or submit the job again"
    return Ending(outcome=Outcome.REFUSED, reason=Reason.CONFIG_INVALID, detail=text)


def _low_space(space: DiskSpace) -> str:
    return f"only {size(space.free)} are free on the disk, and {size(space.required)} must stay free"
