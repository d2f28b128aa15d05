"""Repairs what a killed worker or a lost signal left behind; runs at the worker's start and every minute.

- A running job whose worker is gone: this worker takes its lease over. Its AttemptRunner adopts a trainer that still
  runs, or classifies the attempt if the trainer has exited.
- A queued job whose wake-up signal was lost, or a waiting job that is due: a new signal.
- A message of the outbox that is due: a new delivery signal.
- A job that ended without a report, at the start only: its report.
"""

from __future__ import annotations

import logging

from jobs.model.job import Job, ProcessIdentity
from orchestrator.core.app import App
from orchestrator.core.context import WorkerContext
from orchestrator.report.stored_verdict import lacks_report
from orchestrator.worker.finalize import write_report
from workers.system.processes import is_alive

log = logging.getLogger("lq.recovery")


def wake_for_missed(app: App, now: float) -> None:
    """Send the signals that may have been lost."""
    app.wakeup.wake()
    for message in app.store.outbox.due(now):
        app.wakeup.wake_for_delivery(message.id)


def write_missing_reports(context: WorkerContext) -> None:
    """Write the reports of jobs that ended without one, until the worker shuts down."""
    for job in context.app.store.jobs.overview(all_jobs=True):
        if context.shutting_down.is_set():
            return
        if lacks_report(context.app.store, job) and not write_report(context.app.home, job):
            log.info("job %d: its report was missing and is written now", job.id)


def take_over_orphan(app: App, me: ProcessIdentity, *, busy: set[int], now: float) -> Job | None:
    """Take over one running job without a worker, apart from the `busy` ones of this worker; None if there is none.

    A worker counts as gone only with proof: its process is missing, or was started at another time or boot.
    """
    for job in app.store.jobs.running():
        if job.id in busy or (job.owner is not None and job.owner != me and is_alive(job.owner)):
            continue
        if app.store.leases.take_over(job.id, old=job.owner, new=me, now=now):
            return app.store.jobs.get(job.id)
    return None
