"""The worker's post: delivers what the outbox holds, writes the digest at its hour, keeps the dead-man switch quiet.

Whoever hears a bell while a message is on its way leaves the number and goes: a service that does not answer costs
one thread some seconds, and never the one that is to start the next job.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING

from jobs.model import time_windows
from jobs.model.errors import ConfigInvalid
from jobs.model.job import Message
from orchestrator.core.context import WorkerContext
from orchestrator.notify.heartbeat import Pinger
from orchestrator.notify.routing import wants

if TYPE_CHECKING:
    from configs.settings import NotifySettings

log = logging.getLogger("lq.post")


class OutboxWorker:
    """One for each worker."""

    def __init__(self, context: WorkerContext) -> None:
        """Begin with nothing to deliver.

        Args:
            context: store, settings, wake-up queue and clock.
        """
        self._context = context
        self._pinger = Pinger()
        self._lock = threading.Lock()
        self._asked: set[int] = set()  # messages whose bell was heard
        self._ordered: dict[int, float] = {}  # by message: the moment for which a bell is ordered already
        self._delivering = False

    def deliver(self, message_id: int) -> None:
        """Deliver a message if it is due, and those asked for meanwhile; returns at once where that is being done."""
        with self._lock:
            self._asked.add(message_id)
            if self._delivering:
                return
            self._delivering = True
        try:
            while (asked := self._next()) is not None:
                self._deliver(asked)
        except BaseException:
            with self._lock:
                self._delivering = False  # a bell is rung again for what is due
            raise

    def tick(self) -> None:
        """A minute has passed: write the digest if its hour has come, and ping."""
        time.tzset()  # a laptop travels, and the quiet hours are those of where it is
        try:
            settings = self._context.app.settings().notify
        except ConfigInvalid as error:
            log.error("no digest and no ping: %s", error)
            return
        if settings.ping is not None:
            self._pinger.beat(settings.ping)
        self._write_digest(settings)

    def _next(self) -> int | None:
        """Return the next message asked for; where there is none, or the worker goes home, the round is over."""
        with self._lock:
            if not self._asked or self._context.shutting_down.is_set():
                self._asked.clear()  # what is left is due at the next worker's start
                self._delivering = False
                return None
            found = min(self._asked)
            self._asked.discard(found)
            return found

    def _deliver(self, message_id: int) -> None:
        from orchestrator.notify.apprise_sender import Notifier
        from orchestrator.notify.delivery import Moment, deliver

        app, now = self._context.app, self._context.clock()
        try:
            settings = app.settings().notify
        except ConfigInvalid as error:
            log.error("message %d waits until settings.yaml is mended: %s", message_id, error)
            return  # it stays due, and a bell is rung for it every minute
        self._write_digest(settings)  # at the end of quiet hours it tells what was held back, if it is there first
        when = Moment(
            now=now,
            jitter=random.random(),  # noqa: S311 spreads tries, guards nothing
            quiet=time_windows.parse_window(settings.quiet) if settings.quiet is not None else None,
        )
        after = deliver(message_id, store=app.store, notifier=Notifier(settings.everyone), when=when)
        results = ", ".join(f"{service.service}: {service.last_result}" for service in after.services)
        log.info("message %d (%s) %s: %s", after.id, after.event, after.settled or "open", results or "not tried")
        self._order_bell(after, now)

    def _order_bell(self, message: Message, now: float) -> None:
        """Have a bell rung when a message is due next; once, however many bells were heard for it now."""
        if message.next_try_at is None:
            self._ordered.pop(message.id, None)
        elif self._ordered.get(message.id) != message.next_try_at:
            self._ordered[message.id] = message.next_try_at
            self._context.app.wakeup.wake_for_delivery(message.id, after_s=max(0.0, message.next_try_at - now))

    def _write_digest(self, settings: NotifySettings) -> None:
        if settings.digest is None:
            return
        from orchestrator.notify import digest

        app = self._context.app
        audience = wants(settings.everyone, "digest", job_on=None, job_tags=None)
        written = digest.write_if_due(app.store, hour=settings.digest, audience=audience, now=self._context.clock())
        if written is not None:
            log.info("message %d: the digest", written.id)
            app.wakeup.wake_for_delivery(written.id)
