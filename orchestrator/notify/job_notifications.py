"""Who is told what: messages of a job, written to the outbox where a service listens.

A message is stored in the transaction of its cause: the methods that return messages are for whoever writes that. Only
`trains` writes its own, for a cause that the store has already; whoever adopts the attempt calls it again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import tzinfo

from jobs.model.errors import ConfigInvalid
from jobs.model.job import Attempt, Incident, Job, NewMessage
from jobs.model.outcomes import Outcome, Quality, Reason
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.policies.after_loss_alarm import GUARD_REASONS
from jobs.policies.decision import Decision
from orchestrator.core.app import App
from orchestrator.notify import messages
from orchestrator.notify.routing import wants
from orchestrator.report.stored_verdict import verdict_of

log = logging.getLogger("lq.telling")

_EVENTS = {Status.SUCCEEDED: "finished", Status.FAILED: "failed", Status.HELD: "needs_you"}


class JobNotifications:
    """Words a job's messages."""

    def __init__(self, app: App, job: Job, spec: JobSpec) -> None:
        """Take a job.

        Args:
            app: store, settings and wake-up queue.
            job: the job.
            spec: which events and services it asks for.
        """
        self._app, self._job, self._spec = app, job, spec

    def submitted(self) -> Sequence[NewMessage]:
        """Return the messages that the job's submit causes."""
        return self._heard("submitted", lambda: messages.submitted(self._job, self._spec))

    def of_decision(self, decision: Decision, attempt: Attempt) -> Sequence[NewMessage]:
        """Return the messages a decision causes."""
        event = _EVENTS.get(decision.status)
        if event == "finished" and self._job.group_name is not None and not self._spec.lq.notify.each:
            return []  # told once, when the last of the group has ended (orchestrator/notify/group_notifications.py)
        if decision.status is Status.WAITING and decision.reason is Reason.DISK_FULL:
            event = "needs_you"
        if event is None:
            return []
        return self._heard(event, lambda: self._decided(event, decision, attempt))

    def guarded(self, incident: Incident) -> Sequence[NewMessage]:
        """Return the messages that an answer of the loss guard causes.

        Args:
            incident: what it saw and did; its text is the message's first line.
        """
        return self._heard("spike_handled", lambda: messages.guarded(self._job, incident, self._spec))

    def late(self, *, deadline: float, expected: float | None, zone: tzinfo | None = None) -> Sequence[NewMessage]:
        """Return the messages for a job that will miss its deadline; those of one deadline have one key.

        Args:
            deadline: unix seconds.
            expected: when it will be done at its present speed, unix seconds; None where nobody knows.
            zone: whose hours; None for the machine's own zone.
        """
        job = self._app.store.jobs.get(self._job.id)
        return self._heard(
            "deadline", lambda: messages.late(job, self._spec, deadline=deadline, expected=expected, zone=zone)
        )

    def tell_late(self, *, deadline: float, expected: float | None, zone: tzinfo | None = None) -> None:
        """Tell that the job will miss its deadline; a message's key lets each be told once. Args as for `late`."""
        self._tell(self.late(deadline=deadline, expected=expected, zone=zone))

    def skipped(self, because: str) -> Sequence[NewMessage]:
        """Return the messages for a job that is skipped.

        Args:
            because: why, in one line.
        """
        return self._heard("failed", lambda: messages.skipped(self._job, because, self._spec))

    def queue_paused(self, because: str, now: float) -> Sequence[NewMessage]:
        """Return the messages that a pause of the queue causes."""
        return self._heard("needs_you", lambda: messages.queue_paused(self._job, because, self._spec, now))

    def trains(self, number: int) -> None:
        """Tell that a job trains, or that one which died trains again; a message's key lets it be told once.

        Args:
            number: of the attempt that trains.
        """
        if number == 1:
            self._tell(self._heard("started", lambda: messages.started(self._job, self._spec)))
            return
        before, after = self._app.store.attempts.of(self._job.id)[number - 2 : number]
        gone_back = before.reason in GUARD_REASONS  # told already, as what the loss guard did
        if before.outcome == Outcome.CRASHED and not gone_back and after.quality not in (None, Quality.FRESH):
            heard = self._heard("recovered", lambda: messages.recovered(self._job, before, after, self._spec))
            self._tell(heard)

    def _decided(self, event: str, decision: Decision, attempt: Attempt) -> NewMessage:
        store, job_id = self._app.store, self._job.id
        facts = messages.Facts(
            job=store.jobs.get(job_id),
            attempts=store.attempts.of(job_id),
            points=store.metrics.points(job_id),
            validations=store.metrics.validations(job_id),
            tests=store.metrics.validations(job_id, kind="test"),
            verdict=verdict_of(self._job) if event == "finished" else None,
        )
        return messages.decided(facts, event, decision, self._spec, attempt.number)

    def _tell(self, new: Sequence[NewMessage]) -> None:
        now = time.time()
        for message in new:
            added = self._app.store.outbox.add(message, now)
            if added is not None:
                wait = max(0.0, (added.next_try_at or now) - now)
                self._app.wakeup.wake_for_delivery(added.id, after_s=wait)

    def _heard(self, event: str, word: Callable[[], NewMessage]) -> list[NewMessage]:
        """Word a message where any service hears it; where settings.yaml cannot be read, it waits until it can."""
        try:
            services = self._app.settings().notify.everyone
        except ConfigInvalid as error:
            log.error("nobody can be notified before settings.yaml is mended: %s", error)
            return [word()]
        wanted = self._spec.lq.notify
        return [word()] if wants(services, event, job_on=wanted.on, job_tags=wanted.tags) else []
