"""Rotates the logs of jobs: compresses them at the end, unpacks them before a restart, and limits their size."""

from __future__ import annotations

import logging
from contextlib import suppress

from jobs.model.errors import EventInvalid
from jobs.model.job_dir import JobDir
from jobs.model.states import ENDED
from orchestrator.core.app import App
from workers.events import log as event_log
from workers.files.atomic import cap_log
from workers.process.lock import holder

TRAIN_LOG_BYTES = 4 << 20  # limit of the trainer's own output; the same amount of older output is kept in a second file
START_LOG_BYTES = 256 << 10

log = logging.getLogger("lq.logs")


def pack_log(job_dir: JobDir) -> None:
    """Compress the event log of a job that has ended; if that fails, the next start of a worker tries again."""
    if holder(job_dir.lock) is not None:
        return  # a trainer without a worker writes there
    try:
        event_log.pack(job_dir.events)
    except OSError as error:
        log.warning("%s stays uncompressed for now: %s", job_dir.events, error)


def pack_ended(app: App) -> None:
    """Compress the event logs of all jobs that have ended. Call it only while no job can start."""
    for job in app.store.jobs.overview():
        if job.status in ENDED:
            pack_log(job.dir)


def open_log(job_dir: JobDir) -> None:
    """Unpack the event log for a trainer. A damaged log is renamed, and the trainer starts a new one."""
    try:
        event_log.unpack(job_dir.events)
    except EventInvalid as error:
        damaged = event_log.packed(job_dir.events)
        log.error("%s", error)
        damaged.replace(damaged.with_name(f"{damaged.name}.bad"))


def cap_logs(job_dir: JobDir) -> None:
    with suppress(OSError):
        cap_log(job_dir.log, TRAIN_LOG_BYTES)
