"""Sends a message to the services of settings.yaml, each on a thread of its own, and says what came of it.

The only room that may import apprise, and it does so inside functions: it costs half a second.
A service's URL is a secret from end to end. It may not enter a log, a result, a row or an error, and neither may a
host, a user or a topic taken from it; a service is called by its name in settings.yaml, or by its kind and place.
"""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.model.errors import SecretMissing
from jobs.model.job import Message, ServiceResult
from jobs.policies.delivery import URGENT
from orchestrator.notify import desktop
from orchestrator.notify.routing import DESKTOP, kind, service_names
from orchestrator.notify.secrets import filled

if TYPE_CHECKING:
    from apprise import Apprise, AppriseAttachment

    from configs.settings import Service

TIMEOUT_S = 10.0
LARGEST_ATTACHMENT_BYTES = 5 * 1024 * 1024

DELIVERED, FAILED, TIMED_OUT, NOT_UNDERSTOOD = "delivered", "failed", "timed out", "not understood"

_SEVERITY = {
    "finished": "success",
    "failed": "failure",
    "recovered": "warning",
    "spike_handled": "warning",
    "needs_you": "warning",
    "deadline": "warning",
}


class Notifier:
    """Sends messages to services. Never raises for what a service does or a URL holds."""

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

    def send(self, message: Message, only: Collection[str]) -> tuple[ServiceResult, ...]:
        """Send a message to the named services at the same time, and return what came of it, in their order.

        Args:
            message: its `services` tell how often each was tried before.
            only: names of services; unknown ones are left out.
        """
        tries = {result.service: result.tries + 1 for result in message.services}
        told = {name: service for name, service in self._named.items() if name in set(only)}
        outcomes = _run({name: _Call(service, message, self._timeout_s) for name, service in told.items()})
        return tuple(
            ServiceResult(
                service=name,
                delivered=outcomes[name] == DELIVERED,
                tries=tries.get(name, 1),
                last_result=outcomes[name],
            )
            for name in told
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


class _Call(threading.Thread):
    """One service told about one message, on a thread that can be left behind: no exit waits for a dead server.

    Apprise's own time limit would leave the call in a thread pool that the interpreter joins at its exit.
    """

    def __init__(self, service: Service, message: Message, timeout_s: float) -> None:
        super().__init__(name="lq-notify", daemon=True)
        self.outcome = FAILED
        self.timeout_s = timeout_s
        self._service = service
        self._message = message

    def run(self) -> None:
        """Send, and keep what came of it."""
        if kind(self._service) == DESKTOP:
            urgent = self._message.event in URGENT
            refusal = desktop.show(self._message.title, self._message.body, urgent=urgent, timeout_s=self.timeout_s)
            self.outcome = refusal or DELIVERED
            return
        try:
            target = _target(self._service, self.timeout_s)
        except SecretMissing as error:
            self.outcome = str(error)
            return
        self.outcome = NOT_UNDERSTOOD if target is None else _sent(target, self._message)


def _run(calls: dict[str, _Call]) -> dict[str, str]:
    for call in calls.values():
        call.start()
    begun = time.monotonic()
    return {name: _outcome(call, begun + call.timeout_s) for name, call in calls.items()}


def _outcome(call: _Call, deadline: float) -> str:
    call.join(max(0.0, deadline - time.monotonic()))
    return TIMED_OUT if call.is_alive() else call.outcome


def _sent(target: Apprise, message: Message) -> str:
    from apprise import NotifyFormat

    with (
        _attached(message.attachment) as attachment,
        target.notify(
            title=message.title,
            body=message.body,
            body_format=NotifyFormat.TEXT,
            notify_type=_SEVERITY.get(message.event, "info"),
            attach=attachment,
        ) as outcome,
    ):
        # An attempt, not the service's status: with `?optional=yes` in its URL that says success for a failure.
        return DELIVERED if any(attempt for service in outcome for attempt in service) else FAILED


def _target(service: Service, timeout_s: float) -> Apprise | None:
    """Return an Apprise object that holds this one service, or None where its URL is not understood.

    Raises:
        SecretMissing: the keyring does not give what the URL asks for.
    """
    url = filled(service.url.get_secret_value())
    _silence()
    from apprise import Apprise, AppriseAsset

    # No limit of Apprise's own: it then calls in our thread (see _Call).
    asset = AppriseAsset(app_id="lq", app_desc="lq", service_timeout=0)
    try:
        plugin = Apprise.instantiate(url, asset=asset)
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
