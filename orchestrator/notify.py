"""Apprise behind the persistent outbox: who hears an event, the sending, and what becomes of the row.

The only room that may import apprise, and it does so inside functions: it costs half a second.
A service's URL is a secret from end to end. It may not enter a log, a result, a row or an error, and neither may a
host, a user or a topic taken from it; a service is called by its name in settings.yaml, or by its kind and place.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import threading
import time
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from jobs.job import Message, ServiceResult
from jobs.outbox import NO_LONGER_CONFIGURED, is_pending, next_try

if TYPE_CHECKING:
    from apprise import Apprise, AppriseAttachment

    from configs.settings import Service
    from jobs.spec import Event

DEFAULT_EVENTS: frozenset[Event] = frozenset({"recovered", "needs_you", "failed", "finished"})
"""What a service hears where neither it nor the job says; `started` must be asked for."""

TIMEOUT_S = 10.0
LARGEST_ATTACHMENT_BYTES = 5 * 1024 * 1024

DELIVERED, FAILED, TIMED_OUT, NOT_UNDERSTOOD = "delivered", "failed", "timed out", "not understood"

_KIND = re.compile(r"\s*([A-Za-z][A-Za-z0-9]{0,19})://")
_SEVERITY = {"finished": "success", "failed": "failure", "recovered": "warning"}


class Outbox(Protocol):
    """What delivery needs from the store."""

    def message(self, message_id: int) -> Message:
        """Return one row of the outbox."""

    def due_messages(self, now: float) -> list[Message]:
        """Return the rows whose next try has come."""

    def spec_json(self, job_id: int) -> str:
        """Return the JobSpec of a job as JSON."""

    def record_delivery(
        self,
        message_id: int,
        *,
        services: tuple[ServiceResult, ...],
        next_try_at: float | None,
        settled: str | None,
        now: float,
    ) -> None:
        """Store what came of a try."""


def service_names(services: Sequence[Service]) -> tuple[str, ...]:
    """Return what each service is called wherever a person or the store sees it; no two are the same.

    Its `name`, else kind and place such as `ntfy 2`, of which the kind is the URL's scheme and nothing else is.
    """
    taken: list[str] = []
    for place, service in enumerate(services, start=1):
        name = service.name or f"{_kind(service)} {place}"
        while name in taken:
            name = f"{name} ({place})"
        taken.append(name)
    return tuple(taken)


def _kind(service: Service) -> str:
    scheme = _KIND.match(service.url.get_secret_value())
    return scheme[1].lower() if scheme else "service"


def wants(
    services: Sequence[Service],
    event: str,
    *,
    job_on: Collection[str] | None,
    job_tags: Collection[str] | None,
) -> list[str]:
    """Return the names of the services that hear about an event.

    Args:
        services: of settings.yaml, in its order.
        event: started, recovered, failed or finished.
        job_on: `lq.notify.on` of the job; None leaves it to the services.
        job_tags: `lq.notify.tags` of the job; None means every service, else one tag must be in common.

    Returns:
        Those whose own `on` and the job's both hold the event. One that is silent leaves it to the other; where
        both are, `DEFAULT_EVENTS` holds.
    """
    return [
        name
        for name, service in zip(service_names(services), services, strict=True)
        if event in _events(service, job_on) and (job_tags is None or not set(job_tags).isdisjoint(service.tags))
    ]


def _events(service: Service, job_on: Collection[str] | None) -> Collection[str]:
    if service.on is None:
        return DEFAULT_EVENTS if job_on is None else job_on
    return service.on if job_on is None else set(service.on).intersection(job_on)


class Notifier:
    """Sends messages to the services of settings.yaml. Never raises for what a service does or a URL holds."""

    def __init__(self, services: Sequence[Service], *, timeout_s: float = TIMEOUT_S) -> None:
        """Take the services as they are; nothing is opened before a message is sent.

        Args:
            services: of settings.yaml.
            timeout_s: seconds after which a service that has not answered is left behind.
        """
        self.services = tuple(services)
        self.turn = threading.Lock()  # one delivery at a time, so that two tasks never send one row twice
        self._named = dict(zip(service_names(self.services), self.services, strict=True))
        self._timeout_s = timeout_s

    def not_understood(self) -> tuple[str, ...]:
        """Return the names of the services whose URL Apprise cannot use, for a check of the settings."""
        return tuple(name for name, service in self._named.items() if _target(service, self._timeout_s) is None)

    def send(self, message: Message, only: Collection[str]) -> tuple[ServiceResult, ...]:
        """Send a message to the named services at the same time, and return what came of it, in their order.

        Args:
            message: its `services` tell how often each was tried before.
            only: names of services; unknown ones are left out.
        """
        tries = {result.service: result.tries + 1 for result in message.services}
        targets = {
            name: _target(service, self._timeout_s) for name, service in self._named.items() if name in set(only)
        }
        calls = {name: _Call(target, message) for name, target in targets.items() if target is not None}
        outcomes = _run(calls, self._timeout_s)
        return tuple(
            ServiceResult(
                service=name,
                delivered=outcomes.get(name) == DELIVERED,
                tries=tries.get(name, 1),
                last_result=outcomes.get(name, NOT_UNDERSTOOD),
            )
            for name in targets
        )


def test_services(notifier: Notifier) -> tuple[ServiceResult, ...]:
    """Send a test message to every service, whatever it listens to (`lq notify test`)."""
    message = Message(
        id=0,
        job_id=None,
        event="test",
        key="test",
        title="lq: test",
        body="This is what a notification from lq looks like. Nothing has happened.",
        attachment=None,
        tags=None,
        created_at=0.0,
        next_try_at=None,
        settled=None,
        services=(),
    )
    return notifier.send(message, service_names(notifier.services))


def deliver(message_id: int, *, store: Outbox, notifier: Notifier, now: float, jitter: float) -> Message:
    """Try the services that are still owed a message, and store what came of it.

    At least once: a worker that dies between the sending and the storing sends again. A row that is settled or not
    yet due is left alone, so a task may be doubled.

    Args:
        message_id: row of the outbox.
        store: holds it.
        notifier: knows the services as settings.yaml has them now.
        now: unix seconds.
        jitter: 0..1, spreads the next try.
    """
    with notifier.turn:
        message = store.message(message_id)
        if message.settled is not None or (message.next_try_at or now) > now:
            return message
        results = _try(message, notifier, _wanted(message, store, notifier))
        then = next_try(results, created_at=message.created_at, now=now, jitter=jitter)
        store.record_delivery(message_id, services=results, next_try_at=then.at, settled=then.settled, now=now)
        return store.message(message_id)


def deliver_due(*, store: Outbox, notifier: Notifier, now: float, jitter: float) -> list[Message]:
    """Deliver every message whose time has come (see `deliver`)."""
    due = store.due_messages(now)
    return [deliver(message.id, store=store, notifier=notifier, now=now, jitter=jitter) for message in due]


def _wanted(message: Message, store: Outbox, notifier: Notifier) -> list[str]:
    job_on = None if message.job_id is None else _asked_by_job(store.spec_json(message.job_id))
    return wants(notifier.services, message.event, job_on=job_on, job_tags=message.tags)


def _asked_by_job(spec_json: str) -> tuple[Event, ...] | None:
    from jobs.spec import JobSpec

    try:
        return JobSpec.model_validate_json(spec_json).lq.notify.on
    except ValueError:
        return None  # written by another version of lq: no reason to keep its end from the user


def _try(message: Message, notifier: Notifier, wanted: Sequence[str]) -> tuple[ServiceResult, ...]:
    results = {result.service: result for result in message.services}
    for name, result in results.items():
        if is_pending(result) and name not in wanted:
            results[name] = dataclasses.replace(result, last_result=NO_LONGER_CONFIGURED)
    owed = [name for name in wanted if name not in results or not results[name].delivered]
    results |= {result.service: result for result in notifier.send(message, owed)}
    return tuple(results.values())


class _Call(threading.Thread):
    """One service told about one message, on a thread that can be left behind: no exit waits for a dead server.

    Apprise's own time limit would leave the call in a thread pool that the interpreter joins at its exit.
    """

    def __init__(self, target: Apprise, message: Message) -> None:
        super().__init__(name="lq-notify", daemon=True)
        self.delivered = False
        self._target = target
        self._message = message

    def run(self) -> None:
        """Send, and keep whether the service took it."""
        from apprise import NotifyFormat

        with (
            _attached(self._message.attachment) as attachment,
            self._target.notify(
                title=self._message.title,
                body=self._message.body,
                body_format=NotifyFormat.TEXT,
                notify_type=_SEVERITY.get(self._message.event, "info"),
                attach=attachment,
            ) as outcome,
        ):
            # An attempt, not the service's status: with `?optional=yes` in its URL that says success for a failure.
            self.delivered = any(attempt for service in outcome for attempt in service)


def _run(calls: dict[str, _Call], timeout_s: float) -> dict[str, str]:
    for call in calls.values():
        call.start()
    deadline = time.monotonic() + timeout_s
    return {name: _outcome(call, deadline) for name, call in calls.items()}


def _outcome(call: _Call, deadline: float) -> str:
    call.join(max(0.0, deadline - time.monotonic()))
    if call.is_alive():
        return TIMED_OUT
    return DELIVERED if call.delivered else FAILED


def _target(service: Service, timeout_s: float) -> Apprise | None:
    """Return an Apprise object that holds this one service, or None where its URL is not understood."""
    _silence()
    from apprise import Apprise, AppriseAsset

    # No limit of Apprise's own: it then calls in our thread (see _Call).
    asset = AppriseAsset(app_id="lq", app_desc="lq", service_timeout=0)
    try:
        plugin = Apprise.instantiate(service.url.get_secret_value(), asset=asset)
    except (TypeError, ValueError, LookupError, AttributeError):
        return None  # each plugin parses for itself, and some trip: macosx://%]
    if plugin is None:
        return None
    plugin.retry = 0  # the outbox tries again, and remembers over a restart
    # A call that was left behind must end some day; later than the limit, so that it counts as timed out.
    plugin.socket_connect_timeout = plugin.socket_read_timeout = timeout_s + 1.0
    return Apprise(plugin, asset=asset)


@contextmanager
def _attached(path: str | None) -> Iterator[AppriseAttachment]:
    """Give the file to Apprise where it may go along, and close it afterwards: some plugins leave it open."""
    from apprise import AppriseAttachment

    attachment = AppriseAttachment()
    if path is not None and _fits(Path(path)):
        attachment.add(path)
    try:
        yield attachment
    finally:
        for file in attachment:
            file.invalidate()  # type: ignore[no-untyped-call]


def _fits(path: Path) -> bool:
    try:
        return path.is_file() and 0 < path.stat().st_size < LARGEST_ATTACHMENT_BYTES
    except OSError:
        return False


def _silence() -> None:
    """Shut the mouths of Apprise and the HTTP library under it: their records and warnings name hosts and topics."""
    for name in ("apprise", "urllib3", "requests"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
    warnings.filterwarnings("ignore", message="Unverified HTTPS request")
    warnings.filterwarnings(
        "ignore", message="'imghdr' is deprecated"
    )  # Apprise's mail plugin, on Python 3.11 and 3.12
