"""Sends a message to the services of settings.yaml, one thread for each, and returns the results.

The only module that imports apprise, inside functions, because the import takes half a second.
A service's URL is a secret. Neither the URL nor a host, user or topic of it may appear in a log, a result, a row or an
error; lq refers to a service by its name in settings.yaml, or by its scheme and position.
"""

from __future__ import annotations

import difflib
import logging
import threading
import time
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.model.errors import SecretMissing
from jobs.model.job import Message, ServiceResult
from jobs.policies.delivery import URGENT
from orchestrator.notify import desktop
from orchestrator.notify.failures import FAILED, TIMED_OUT, reason_in
from orchestrator.notify.routing import DESKTOP, kind, service_names
from orchestrator.notify.secrets import fill_in

if TYPE_CHECKING:
    from apprise import Apprise, AppriseAttachment

    from configs.settings import Service

TIMEOUT_S = 10.0
LARGEST_ATTACHMENT_BYTES = 5 * 1024 * 1024

DELIVERED = "delivered"

_SEVERITY = {
    "finished": "success",
    "failed": "failure",
    "recovered": "warning",
    "spike_handled": "warning",
    "needs_you": "warning",
    "deadline": "warning",
}


class Notifier:
    """Sends messages to services. Does not raise for the failure of a service or an invalid URL."""

    def __init__(self, services: Sequence[Service], *, timeout_s: float = TIMEOUT_S) -> None:
        """Keep the services; connections are opened when a message is sent."""
        self.services = tuple(services)
        self.turn = threading.Lock()  # one delivery at a time, so that two tasks do not send one row twice
        self._named = dict(zip(service_names(self.services), self.services, strict=True))
        self._timeout_s = timeout_s

    def send(self, message: Message, only: Collection[str]) -> tuple[ServiceResult, ...]:
        """Send a message to the named services at the same time; `message.services` has the earlier tries."""
        tries = {result.service: result.tries + 1 for result in message.services}
        chosen = {name: service for name, service in self._named.items() if name in set(only)}
        calls = {name: _Call(service, message, self._timeout_s) for name, service in chosen.items()}
        for call in calls.values():
            call.start()
        end = time.monotonic() + self._timeout_s
        outcomes = {name: call.outcome_by(end) for name, call in calls.items()}
        return tuple(
            ServiceResult(
                service=name,
                delivered=outcomes[name] == DELIVERED,
                tries=tries.get(name, 1),
                last_result=outcomes[name],
            )
            for name in chosen
        )


def send_test(notifier: Notifier) -> tuple[ServiceResult, ...]:
    """Send a test message to every service, without routing (`lq notify test`)."""
    message = Message(
        id=0,
        job_id=None,
        event="test",
        key="test",
        title="lq: test",
        body="This is a test notification from lq. No action is needed.",
        attachment=None,
        tags=None,
        created_at=0.0,
        next_try_at=None,
        settled=None,
        services=(),
    )
    return notifier.send(message, service_names(notifier.services))


def fault_of(service: Service) -> str | None:
    """Return why a service can never send: its URL is not understood, or its secret is missing; None if it can."""
    if kind(service) == DESKTOP:
        return None
    try:
        target = _target(service, TIMEOUT_S, _Listener())
    except SecretMissing as error:
        return str(error)
    return _not_understood(kind(service)) if target is None else None


class _Call(threading.Thread):
    """Sends one message to one service, in a daemon thread: the process can exit while a server does not answer.

    With Apprise's own time limit the call would stay in a thread pool, which the interpreter joins at its exit.
    """

    def __init__(self, service: Service, message: Message, timeout_s: float) -> None:
        super().__init__(name="lq-notify", daemon=True)
        self.outcome = FAILED
        self._service, self._message, self._timeout_s = service, message, timeout_s

    def run(self) -> None:
        """Send, and keep the result."""
        if kind(self._service) == DESKTOP:
            urgent = self._message.event in URGENT
            error = desktop.show(self._message.title, self._message.body, urgent=urgent, timeout_s=self._timeout_s)
            self.outcome = error or DELIVERED
            return
        listener = _Listener()
        try:
            target = _target(self._service, self._timeout_s, listener)
        except SecretMissing as error:
            self.outcome = str(error)
            return
        if target is None:
            self.outcome = _not_understood(kind(self._service))
        elif _is_sent(target, self._message):
            self.outcome = DELIVERED
        else:
            self.outcome = reason_in("\n".join(listener.texts))

    def outcome_by(self, end: float) -> str:
        """Wait for the result until a time of the monotonic clock."""
        self.join(max(0.0, end - time.monotonic()))
        return TIMED_OUT if self.is_alive() else self.outcome


class _Listener(logging.Handler):
    """Keeps what Apprise would log about one service."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text, which contains secrets."""
        self.texts.append(record.getMessage())

    def logger(self) -> logging.Logger:
        """Return a logger that nothing else sees."""
        logger = logging.Logger("lq.apprise", logging.DEBUG)
        logger.addHandler(self)
        return logger


def _not_understood(scheme: str) -> str:
    """Return why Apprise does not accept a URL; of the URL itself only its scheme appears."""
    from apprise.manager_plugins import NotificationManager

    manager: Any = NotificationManager
    known = [str(name) for name in manager().schemas()]
    if scheme in known:
        return f"not understood: the part after {scheme}:// is not valid for this service"
    close = difflib.get_close_matches(scheme, known, n=1, cutoff=0.7)
    return f"not understood: no service {scheme}://" + (f"; did you mean {close[0]}://?" if close else "")


def _is_sent(target: Apprise, message: Message) -> bool:
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
        # The result of the attempt, not of the service: with `?optional=yes` in its URL a failed service is True.
        return any(attempt for service in outcome for attempt in service)


def _target(service: Service, timeout_s: float, listener: _Listener) -> Apprise | None:
    """Return an Apprise object with only this service; None if Apprise does not accept its URL."""
    url = fill_in(service.url.get_secret_value())
    _silence_libraries()
    from apprise import Apprise, AppriseAsset

    # Without a limit of its own Apprise calls in this thread (see _Call).
    asset = AppriseAsset(app_id="lq", app_desc="lq", service_timeout=0)
    try:
        plugin = Apprise.instantiate(url, asset=asset)
    except (TypeError, ValueError, LookupError, AttributeError):
        return None  # some plugins raise for an invalid URL, such as macosx://%]
    if plugin is None:
        return None
    plugin.logger = listener.logger()
    plugin.retry = 0  # the outbox retries, also after a restart
    # Ends a call that timed out; later than the limit, so that its result is `timed out`.
    plugin.socket_connect_timeout = plugin.socket_read_timeout = timeout_s + 1.0
    return Apprise(plugin, asset=asset)


@contextmanager
def _attached(path: str | None) -> Iterator[AppriseAttachment]:
    """Attach a file if its size allows it, and close it afterwards, which some plugins do not do."""
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


def _silence_libraries() -> None:
    """Turn off the log records and warnings of Apprise and its HTTP library: they contain hosts and topics."""
    for name in ("apprise", "urllib3", "requests"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL + 1)
        logger.propagate = False
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())
    warnings.filterwarnings("ignore", message="Unverified HTTPS request")
    warnings.filterwarnings("ignore", message="'imghdr' is deprecated")  # Apprise's mail plugin, Python 3.11 and 3.12
