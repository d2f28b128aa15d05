"""A job's logs: compressed when it has ended, plain again before it goes on, and never longer than their cap."""

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

TRAIN_LOG_BYTES = 4 << 20
"""What the trainer's own output may take; as much again is kept of what came before."""

START_LOG_BYTES = 256 << 10

log = logging.getLogger("lq.upkeep")


def pack_log(job_dir: JobDir) -> None:
    """Compress what a job that has ended said; where that fails it stays as it is, and is tried again some time."""
    if holder(job_dir.lock) is not None:
        return  # a trainer that nobody knows of writes there
    try:
        event_log.pack(job_dir.events)
    except OSError as error:
        log.warning("%s stays uncompressed for now: %s", job_dir.events, error)


def pack_ended(app: App) -> None:
    """Compress the logs of the jobs that ended while nobody was there to do it. Only where no job is started meanwhile.

    Args:
        app: the store.
    """
    for job in app.store.jobs.overview():
        if job.status in ENDED:
            pack_log(job.dir)


def open_log(job_dir: JobDir) -> None:
    """Make a job's log ready for a trainer to go on with. One that is damaged is put beside, and begun anew."""
    try:
        event_log.unpack(job_dir.events)
    except EventInvalid as error:
        damaged = event_log.packed(job_dir.events)
        log.error("%s", error)
        damaged.replace(damaged.with_name(f"{damaged.name}.bad"))


def cap_logs(job_dir: JobDir) -> None:
    """Keep the trainer's own output within its bounds while it writes."""
    with suppress(OSError):
        cap_log(job_dir.log, TRAIN_LOG_BYTES)
