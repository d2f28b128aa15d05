"""Delivers the outbox, publishes the digest at its hour and sends the heartbeat.

One thread delivers at a time. A concurrent delivery request queues the message id and returns, so a service that does
not answer delays one thread by some seconds, and never the thread that starts the next job.
"""

from __future__ import annotations

import dataclasses
import logging
import random
import threading
import time
from collections.abc import Sequence
from datetime import tzinfo
from typing import TYPE_CHECKING

from jobs.model import time_windows
from jobs.model.job import Message, ServiceResult
from jobs.model.time_windows import TimeWindow
from jobs.policies import delivery
from jobs.policies.delivery import NO_LONGER_CONFIGURED, is_pending
from orchestrator.core.context import WorkerContext
from orchestrator.notify import digest, messages
from orchestrator.notify.heartbeat import Pinger
from orchestrator.notify.publisher import Publisher
from orchestrator.notify.routing import audience

if TYPE_CHECKING:
    from configs.settings import NotifySettings
    from jobs.model.spec import NotifyEvent
    from orchestrator.notify.apprise_sender import Notifier
    from orchestrator.store.store import Store

log = logging.getLogger("lq.outbox")


class OutboxWorker:
    """One for each worker."""

    def __init__(self, context: WorkerContext) -> None:
        """Start with nothing to deliver."""
        self._context = context
        self._publisher = Publisher(context.app)
        self._pinger = Pinger()
        self._lock = threading.Lock()
        self._requested: set[int] = set()  # ids of messages to deliver
        self._scheduled: dict[int, float] = {}  # by message id: the time of the wake-up that is scheduled already
        self._delivering = False

    def deliver(self, message_id: int) -> None:
        """Deliver a message if it is due. If another thread delivers, add the message to its queue and return."""
        with self._lock:
            self._requested.add(message_id)
            if self._delivering:
                return
            self._delivering = True
        try:
            while (requested := self._next()) is not None:
                self._deliver(requested)
        except BaseException:
            with self._lock:
                self._delivering = False  # the next tick requests what is due again
            raise

    def tick(self) -> None:
        """Send the heartbeat, and publish the digest if it is due; called every minute."""
        time.tzset()  # a laptop changes its time zone; quiet hours and digest follow
        settings = self._context.app.valid_settings()
        if settings is None:
            return
        if settings.notify.ping is not None:
            self._pinger.beat(settings.notify.ping)
        self._publish_digest(settings.notify)

    def _next(self) -> int | None:
        """Return the next requested message; None ends the delivery, also if the worker shuts down."""
        with self._lock:
            if not self._requested or self._context.shutting_down.is_set():
                self._requested.clear()  # the next worker requests what is left
                self._delivering = False
                return None
            message_id = min(self._requested)
            self._requested.discard(message_id)
            return message_id

    def _deliver(self, message_id: int) -> None:
        from orchestrator.notify.apprise_sender import Notifier

        app, now = self._context.app, self._context.clock()
        settings = app.valid_settings()
        if settings is None:
            return  # the message stays due, and every tick requests it again
        self._publish_digest(settings.notify)  # at the end of quiet hours the digest replaces held messages
        quiet = settings.notify.quiet
        when = DeliveryTime(
            now=now,
            jitter=random.random(),  # noqa: S311 spreads retries, no secret
            quiet=time_windows.parse_window(quiet) if quiet is not None else None,
        )
        after = deliver(message_id, store=app.store, notifier=Notifier(settings.notify.everyone), when=when)
        results = ", ".join(f"{service.service}: {service.last_result}" for service in after.services)
        log.info("message %d (%s) %s: %s", after.id, after.event, after.settled or "open", results or "not tried")
        self._schedule_wakeup(after, now)

    def _schedule_wakeup(self, message: Message, now: float) -> None:
        """Schedule one wake-up for the time when a message is due next."""
        if message.next_try_at is None:
            self._scheduled.pop(message.id, None)
        elif self._scheduled.get(message.id) != message.next_try_at:
            self._scheduled[message.id] = message.next_try_at
            self._context.app.wakeup.wake_for_delivery(message.id, after_s=max(0.0, message.next_try_at - now))

    def _publish_digest(self, settings: NotifySettings) -> None:
        if settings.digest is not None:
            now = self._context.clock()
            digest.publish_if_due(self._context.app.store, self._publisher, hour=settings.digest, now=now)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeliveryTime:
    """The time of a delivery, and what depends on it."""

    now: float  # unix seconds
    jitter: float  # 0..1, spreads the next try
    quiet: TimeWindow | None = None  # quiet hours
    zone: tzinfo | None = None  # time zone of the quiet hours; None for the machine's own

    def earliest(self, event: str, moment: float) -> float | None:
        """Return the end of the quiet hours that hold an event back at a time, in unix seconds; None if none do."""
        return delivery.quiet_until(event, moment, self.quiet, self.zone)


def deliver(message_id: int, *, store: Store, notifier: Notifier, when: DeliveryTime) -> Message:
    """Send a message to the services that have not received it, and store the results.

    Delivery is at least once: a worker that is killed between sending and storing sends again. A message that is
    settled or not due yet is left unchanged, so this may be called twice for one message.
    """
    with notifier.turn:
        message = store.outbox.get(message_id)
        if message.settled is not None or (message.next_try_at or when.now) > when.now:
            return message
        results, next_try_at, settled = message.services, when.earliest(message.event, when.now), None
        if next_try_at is None:
            results = _send(message, store, notifier, when)
            due = message.due_at or message.created_at
            first_try = when.earliest(message.event, due) or due
            then = delivery.next_try(results, first_try=first_try, now=when.now, jitter=when.jitter)
            next_try_at, settled = then.at, then.settled
        store.outbox.record_delivery(
            message.id, services=results, next_try_at=next_try_at, settled=settled, now=when.now
        )
        return store.outbox.get(message_id)


def _send(message: Message, store: Store, notifier: Notifier, when: DeliveryTime) -> tuple[ServiceResult, ...]:
    """Send a message to the services that have not received it, and return the results of all services."""
    related = store.outbox.related(message)
    wanted = _audience(message, store, notifier)
    results = {result.service: result for result in message.services}
    for name, result in results.items():
        if is_pending(result) and name not in wanted:
            results[name] = dataclasses.replace(result, last_result=NO_LONGER_CONFIGURED)
    pending = [name for name in wanted if name not in results or is_pending(results[name])]
    for name, how in _covered(message, related, pending, store, notifier, when.now).items():
        before = results.get(name) or ServiceResult(service=name, delivered=False, tries=0, last_result=how)
        results[name] = dataclasses.replace(before, last_result=how)
        pending.remove(name)
    if pending:
        sent = notifier.send(_merged(message, related, when.zone), pending)
        results |= {result.service: result for result in sent}
    return tuple(results.values())


def _audience(message: Message, store: Store, notifier: Notifier) -> list[str]:
    job_on = None if message.job_id is None else _events_of_job(store.jobs.spec_json(message.job_id))
    return audience(notifier.services, message.event, job_on=job_on, job_tags=message.tags)


def _events_of_job(spec_json: str) -> tuple[NotifyEvent, ...] | None:
    from jobs.model.spec import JobSpec

    try:
        return JobSpec.model_validate_json(spec_json).lq.notify.on
    except ValueError:
        return None  # another version of lq wrote the spec; the user still receives the messages


def _covered(
    message: Message, related: Sequence[Message], pending: Sequence[str], store: Store, notifier: Notifier, now: float
) -> dict[str, str]:
    """Return the services that receive another message which includes this one, and their result."""
    covered: dict[str, str] = {}
    for other in related:
        how = delivery.included_in(message, other, now)
        if how is not None:
            names = _audience(other, store, notifier)
            covered |= {name: how for name in names if name in pending and name not in covered}
    return covered


def _merged(message: Message, related: Sequence[Message], zone: tzinfo | None) -> Message:
    """Return a message as it is sent: with the earlier ones of its kind that it replaces."""
    if message.job_id is None:
        return message
    earlier = [other for other in related if other.event == message.event and other.id < message.id]
    return messages.merged(delivery.occurrences(message, earlier), zone)
