"""Puts every message into the outbox: of jobs, groups, the queue, the inbox and the digest.

lq composes a message only if a service of settings.yaml listens to its event. If settings.yaml is invalid, lq keeps
the message: the outbox delivers it when the file is valid again.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from datetime import tzinfo

from jobs.model.job import Attempt, Incident, Job, Message, NewMessage
from jobs.model.outcomes import Outcome, Quality, Reason
from jobs.model.spec import JobSpec, Notify
from jobs.model.states import Status
from jobs.policies.after_loss_alarm import GUARD_REASONS
from jobs.policies.decision import Decision
from orchestrator.core import cli_subprocess
from orchestrator.core.app import App
from orchestrator.notify import messages
from orchestrator.notify.routing import audience
from orchestrator.report.stored_verdict import stored_verdict
from orchestrator.store.groups import EndedGroup

GROUP_NEWS_S = 24 * 3600.0
"""A group that ended longer ago is not reported: its worker was stopped before it could be."""

COMPARE_TIMEOUT_S = 300.0

_EVENTS = {Status.SUCCEEDED: "finished", Status.FAILED: "failed", Status.HELD: "needs_you"}

log = logging.getLogger("lq.notify")


class Publisher:
    """The way into the outbox."""

    def __init__(self, app: App) -> None:
        """Use the store, the settings and the wake-up queue of an application."""
        self._app = app

    def select(
        self, event: str, compose: Callable[[], NewMessage | None], notify: Notify | None = None
    ) -> list[NewMessage]:
        """Return a message if a service listens to its event, for a caller that stores it with its cause.

        Args:
            event: event of jobs.model.spec, or digest.
            compose: makes the message; called only if a service listens.
            notify: `lq.notify` of the job; None if the message is about no job.
        """
        settings = self._app.valid_settings()
        if settings is not None:
            on, tags = (notify.on, notify.tags) if notify is not None else (None, None)
            if not audience(settings.notify.everyone, event, job_on=on, job_tags=tags):
                return []
        message = compose()
        if message is None:
            return []
        url = settings.web.url if settings is not None else None
        if url is not None and message.job_id is not None:
            message = dataclasses.replace(message, body=f"{message.body}\n{url}/jobs/{message.job_id}")
        return [message]

    def publish(
        self, event: str, compose: Callable[[], NewMessage | None], notify: Notify | None = None, *, now: float
    ) -> Message | None:
        """Store the message of `select` and request its delivery; None if there is none, or its key exists already."""
        for new in self.select(event, compose, notify):
            row = self._app.store.outbox.add(new, now)
            if row is not None:
                log.info("message %d: %s", row.id, row.title)
                self._app.wakeup.wake_for_delivery(row.id, after_s=max(0.0, (row.next_try_at or now) - now))
                return row
        return None


class JobNotifications:
    """The messages about one job."""

    def __init__(self, app: App, job: Job, spec: JobSpec) -> None:
        """Use the events and tags of the job's spec."""
        self._app, self._job, self._spec = app, job, spec
        self._publisher, self._notify = Publisher(app), spec.lq.notify

    def submitted(self) -> Sequence[NewMessage]:
        """Return the messages for a submit."""
        return self._select("submitted", lambda: messages.submitted(self._job, self._spec))

    def decided(self, decision: Decision, attempt: Attempt) -> Sequence[NewMessage]:
        """Return the messages for the decision after an attempt."""
        event = _EVENTS.get(decision.status)
        if event == "finished" and self._job.group_name is not None and not self._notify.each:
            return []  # `publish_ended_groups` reports the group
        if decision.status is Status.WAITING and _needs_user(decision):
            event = "needs_you"
        if event is None:
            return []
        return self._select(event, lambda: self._decided(event, decision, attempt))

    def spike_handled(self, incident: Incident) -> Sequence[NewMessage]:
        """Return the messages for a rollback of the loss guard."""
        return self._select("spike_handled", lambda: messages.spike_handled(self._job, incident, self._spec))

    def skipped(self, because: str) -> Sequence[NewMessage]:
        """Return the messages for a job that will not run."""
        return self._select("failed", lambda: messages.skipped(self._job, because, self._spec))

    def queue_paused(self, because: str, now: float) -> Sequence[NewMessage]:
        """Return the messages for a pause of the queue."""
        return self._select("needs_you", lambda: messages.queue_paused(self._job, because, self._spec, now))

    def publish_late(self, *, deadline: float, expected: float | None, now: float, zone: tzinfo | None = None) -> None:
        """Report that the job will miss its deadline, once for each deadline; `expected` is None if it is unknown."""

        def compose() -> NewMessage:
            job = self._app.store.jobs.get(self._job.id)
            return messages.late(job, self._spec, deadline=deadline, expected=expected, zone=zone)

        self._publisher.publish("deadline", compose, self._notify, now=now)

    def publish_training(self, number: int, *, now: float) -> None:
        """Report that the job trains, or that it trains again after a crash; once for each attempt."""
        if number == 1:
            self._publisher.publish("started", lambda: messages.started(self._job, self._spec), self._notify, now=now)
            return
        before, after = self._app.store.attempts.of(self._job.id)[number - 2 : number]
        rolled_back = before.reason in GUARD_REASONS  # reported as spike_handled
        if before.outcome == Outcome.CRASHED and not rolled_back and after.quality not in (None, Quality.FRESH):
            self._publisher.publish(
                "recovered", lambda: messages.recovered(self._job, before, after, self._spec), self._notify, now=now
            )

    def _select(self, event: str, compose: Callable[[], NewMessage]) -> list[NewMessage]:
        return self._publisher.select(event, compose, self._notify)

    def _decided(self, event: str, decision: Decision, attempt: Attempt) -> NewMessage:
        store, job_id = self._app.store, self._job.id
        facts = messages.MessageFacts(
            job=store.jobs.get(job_id),
            attempts=store.attempts.of(job_id),
            validations=store.metrics.validations(job_id),
            verdict=stored_verdict(self._job),
        )
        return messages.decided(facts, event, decision, self._spec, attempt.number)


def _needs_user(decision: Decision) -> bool:
    """Report whether a job waits for something that the user may have to repair, and this is the first time."""
    evidence = decision.evidence
    if "machine" in evidence:
        return evidence["asks_user"] is True
    return decision.reason is Reason.DISK_FULL or (decision.reason is Reason.NETWORK and evidence["waits"] == 1)


def publish_ended_groups(app: App, now: float) -> None:
    """Report every group whose last job has ended, once."""
    for group in app.store.groups.ended_since(now - GROUP_NEWS_S):
        if not app.store.outbox.has(messages.group_key(group.name, group.ended_at)):
            _publish_group(app, group, now)


def _publish_group(app: App, group: EndedGroup, now: float) -> None:
    spec = app.store.spec(group.last_job)

    def compose() -> NewMessage:
        best, picture = _compare(app, group.name)
        jobs = app.store.groups.jobs(group.name)
        return messages.group_ended(group.name, jobs, best, ended_at=group.ended_at, picture=picture, spec=spec)

    Publisher(app).publish("finished", compose, spec.lq.notify, now=now)


def _compare(app: App, name: str) -> tuple[str, str | None]:
    """Return the best job of a group, and the path of the picture.

    A child process compares the jobs, so that their curves do not use the worker's memory.
    """
    content = cli_subprocess.json_of(app.home, "compare", f"--group={name}", timeout_s=COMPARE_TIMEOUT_S)
    if content is None:
        return "The jobs could not be compared", None
    best = content["best_of"]
    if best is None:
        why_not = content["not_compared_because"]
        return f"No best job: {why_not}" if why_not else "No job ended with a validation and an adapter", content[
            "picture"
        ]
    return f"Best: {best['name']} (job {best['id']}), validation loss {best['loss']:.4f}", content["picture"]
