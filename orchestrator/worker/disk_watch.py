"""What a child needs around it: its folder, its log, space on the disk. Looked at by the worker while the child trains.

A hint of watch.py may bring the look forward; the worker looks several times a second anyway.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from jobs.model.errors import ConfigInvalid
from jobs.model.job_dir import JobDir
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.spec import JobSpec, Keep
from orchestrator.core.app import App
from orchestrator.formatting.text import size
from orchestrator.worker.log_rotation import cap_logs
from workers.system import disk
from workers.system.disk import Space

LOOK_AT_THE_DISK_S = 2.0
VANISHED_GRACE_S = 5.0
"""There is nowhere left to write a checkpoint to."""

log = logging.getLogger("lq.surroundings")


class DiskWatch:
    """Of one attempt's child."""

    def __init__(self, app: App, job_dir: JobDir, spec: JobSpec, prune: Callable[[JobSpec], None]) -> None:
        """Begin before the child starts.

        Args:
            app: the machine's settings.
            job_dir: the job's folder.
            spec: what was asked for.
            prune: lets go what a spec does not keep.
        """
        self._app, self._job_dir, self._spec, self._prune = app, job_dir, spec, prune
        self._spoke = False  # events.jsonl was there
        self._looked_at = float("-inf")
        self.vanished = False  # the folder is gone
        self.unheard: str | None = None  # why the child cannot be heard any more
        self.disk_low: str | None = None  # why there is too little space

    def look(self) -> str | None:
        """Say why the child must stop; None where all is as it should be."""
        self.vanished = self.vanished or ending(self._job_dir) is not None
        if self.vanished:
            return gone(self._job_dir)
        heard = self._job_dir.events.exists()
        self._spoke = self._spoke or heard
        if self._spoke and not heard:
            self.unheard = f"{self._job_dir.events} was deleted, so the trainer writes where nobody reads"
        if time.monotonic() - self._looked_at >= LOOK_AT_THE_DISK_S:
            self._looked_at = time.monotonic()
            cap_logs(self._job_dir)
            self._look_at_the_disk()
        return self.unheard or self.disk_low

    def _look_at_the_disk(self) -> None:
        """Below the floor all checkpoints but the newest and the best go first; if that is not enough, it waits."""
        floor = floor_of(self._app)
        space = disk.space_for(self._job_dir, floor=floor)
        if space is None or space.enough:
            return
        log.warning("%s: %s; all but the newest and the best checkpoint go", self._job_dir.path, _words(space))
        self._prune(sparing(self._spec))
        space = disk.space_for(self._job_dir, floor=floor)
        if space is not None and not space.enough:
            self.disk_low = _words(space)


def sparing(spec: JobSpec) -> JobSpec:
    """Return a spec that keeps the newest and the best checkpoint only; milestones stay as adapters."""
    keep = Keep(last=1, best=1, milestones=spec.lq.keep.milestones)
    return spec.model_copy(update={"lq": spec.lq.model_copy(update={"keep": keep})})


def floor_of(app: App) -> int:
    """Return the bytes that must stay free on this machine; the default where settings.yaml cannot be read now."""
    from configs.settings import DiskSettings

    try:
        return app.settings().disk.floor
    except ConfigInvalid as error:
        log.error("%s", error)
        return DiskSettings().floor


def ending(job_dir: JobDir) -> Ending | None:
    """Return how an attempt ended whose folder is gone; None where it is there.

    Its configuration stands for it: who deletes a folder that is written to leaves parts of it behind.
    """
    if job_dir.config.exists():
        return None
    return Ending(outcome=Outcome.REFUSED, reason=Reason.CONFIG_INVALID, detail=gone(job_dir))


def gone(job_dir: JobDir) -> str:
    """Return what is said of a folder that is gone, and what to do."""
    return (
        f"the job's folder {job_dir.path} was deleted or moved away, or the configuration in it; "
        "put it back and retry, or submit the job again"
    )


def _words(space: Space) -> str:
    return f"only {size(space.free)} are free on the disk, and {size(space.floor)} must stay free"
