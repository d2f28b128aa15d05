"""Who is told what: messages of a job, written to the outbox where a service listens."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from jobs.errors import ConfigInvalid
from jobs.job import Attempt, Job, NewMessage
from jobs.outcomes import Outcome, Quality
from jobs.policy import Decision
from jobs.spec import JobSpec
from jobs.states import Status
from orchestrator import messages
from orchestrator.app import App

log = logging.getLogger("lq.telling")

_EVENTS = {Status.SUCCEEDED: "finished", Status.FAILED: "failed", Status.HELD: "needs_you"}


class Teller:
    """Writes a job's messages."""

    def __init__(self, app: App, job: Job, spec: JobSpec) -> None:
        """Take a job.

        Args:
            app: store, settings and doorbell.
            job: the job.
            spec: which events and services it asks for.
        """
        self._app, self._job, self._spec = app, job, spec

    def of_decision(self, decision: Decision, attempt: Attempt) -> Sequence[NewMessage]:
        """Return the messages a decision causes; they are stored in its own transaction."""
        event = _EVENTS.get(decision.status)
        if event is None or not self._heard(event):
            return []
        store, job_id = self._app.store, self._job.id
        facts = messages.Facts(
            job=store.job(job_id),
            attempts=store.attempts(job_id),
            points=store.points(job_id),
            validations=store.validations(job_id),
            tests=store.validations(job_id, kind="test"),
        )
        return [messages.decided(facts, event, decision, self._spec, attempt.number)]

    def trains(self, number: int) -> None:
        """Tell that a job trains, or that one which died trains again; a message's key lets it be told once.

        Args:
            number: of the attempt that trains.
        """
        if number == 1:
            self._tell("started", messages.started(self._job, self._spec))
            return
        before, now = self._app.store.attempts(self._job.id)[number - 2 : number]
        if before.outcome == Outcome.DIED and now.quality not in (None, Quality.FRESH):
            self._tell("recovered", messages.recovered(self._job, before, now, self._spec))

    def queue_paused(self, because: str, now: float) -> None:
        """Tell that the queue is paused and wants a person."""
        self._tell("needs_you", messages.queue_paused(self._job, because, self._spec, now))

    def _tell(self, event: str, message: NewMessage) -> None:
        if not self._heard(event):
            return
        added = self._app.store.add_message(message, time.time())
        if added is not None:
            self._app.doorbell.ring_for_delivery(added.id)

    def _heard(self, event: str) -> bool:
        """Say whether any service hears an event; none does where settings.yaml cannot be read, and the log says so."""
        from orchestrator.notify import wants

        try:
            services = self._app.settings().notify.services
        except ConfigInvalid as error:
            log.error("nobody can be notified: %s", error)
            return False
        wanted = self._spec.lq.notify
        return bool(wants(services, event, job_on=wanted.on, job_tags=wanted.tags))
