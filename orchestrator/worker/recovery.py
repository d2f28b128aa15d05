"""At the worker's start and every minute: make store and reality agree. Acts on proof only.

What may have come apart, and who puts it right:
- a lease whose worker is gone (no such process, another start, another boot): taken over here, and the story goes on;
- a child without a worker: adopted by that story; an attempt without a process: classified by it;
- a queued job whose wake-up queue was lost, a waiting job that is due: a bell is rung for them;
- a message of the outbox that was not sent: a bell is rung for each that is due.
"""

from __future__ import annotations

from jobs.model.job import Job, ProcessIdentity
from orchestrator.core.app import App
from workers.system.processes import is_alive


def wake_for_missed(app: App, now: float) -> None:
    """Ring for whatever a lost bell left lying.

    Args:
        app: store and wake-up queue.
        now: unix seconds.
    """
    app.wakeup.wake()
    for message in app.store.outbox.due(now):
        app.wakeup.wake_for_delivery(message.id)


def take_over_orphan(app: App, me: ProcessIdentity, *, busy: set[int], now: float) -> Job | None:
    """Take over one running job that nobody looks after; None where there is none.

    "Cannot see it" is never "dead": only a missing process, another start or another boot proves a worker gone.

    Args:
        app: the store.
        me: this worker.
        busy: jobs this worker looks after already.
        now: unix seconds.
    """
    for job in app.store.jobs.running():
        if job.id in busy or (job.owner is not None and job.owner != me and is_alive(job.owner)):
            continue
        if app.store.leases.take_over(job.id, old=job.owner, new=me, now=now):
            return app.store.jobs.get(job.id)
    return None
