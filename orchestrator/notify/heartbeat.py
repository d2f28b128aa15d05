"""The heartbeat: the worker sends a GET every minute, and an external service reports when they stop.

The URL is a secret, as in apprise_sender.py: no part of it, and no error text that may contain it, leaves this module.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from jobs.model.errors import SecretMissing
from orchestrator.notify.failures import reason_in
from orchestrator.notify.secrets import fill_in

if TYPE_CHECKING:
    from pydantic import SecretStr

TIMEOUT_S = 10.0
LEAST_PAUSE_S = 50.0
"""Least time between two pings: a tick comes every minute, and one at the worker's start."""

ANSWERED = "answered"

log = logging.getLogger("lq.heartbeat")


class Pinger:
    """Sends pings in a thread, one at a time, so that a slow service does not block the worker."""

    def __init__(self, *, timeout_s: float = TIMEOUT_S) -> None:
        """Start without a ping."""
        self._last_result = ANSWERED
        self._timeout_s = timeout_s
        self._pinged_at = float("-inf")
        self._thread: threading.Thread | None = None

    def beat(self, url: SecretStr) -> None:
        """Start a ping unless one runs or started less than `LEAST_PAUSE_S` ago; return immediately."""
        busy = self._thread is not None and self._thread.is_alive()
        if busy or time.monotonic() - self._pinged_at < LEAST_PAUSE_S:
            return
        self._pinged_at = time.monotonic()
        self._thread = threading.Thread(target=self._ping, args=(url,), name="lq-ping", daemon=True)
        self._thread.start()

    def _ping(self, url: SecretStr) -> None:
        result = ping(url, timeout_s=self._timeout_s)
        if result != self._last_result:  # only changes are logged, not one line a minute
            log.log(logging.INFO if result == ANSWERED else logging.WARNING, "the ping: %s", result)
        self._last_result = result


def ping(url: SecretStr, *, timeout_s: float = TIMEOUT_S) -> str:
    """GET an http or https URL once; return `answered`, or an error text without any part of the URL."""
    import http.client
    import urllib.error
    import urllib.request

    try:
        address, authorization = _split_credentials(fill_in(url.get_secret_value()))
        if not address.lower().startswith(("http://", "https://")):
            return "not understood"
        request = urllib.request.Request(address, headers={"User-Agent": "lq"})  # noqa: S310 checked above
        if authorization is not None:
            request.add_unredirected_header("Authorization", authorization)  # a redirect may lead to another host
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310 checked above
            answer.read(1)
    except SecretMissing as error:
        return str(error)
    except urllib.error.HTTPError as error:
        error.close()
        return f"HTTP status {error.code}"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return reason_in(repr(error))
    return ANSWERED


def _split_credentials(url: str) -> tuple[str, str | None]:
    """Return a URL without user and password, and the header with them: urllib does not accept them in a URL."""
    import base64
    from urllib.parse import unquote, urlsplit, urlunsplit

    parts = urlsplit(url)
    authorization = None
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(credentials.encode()).decode()}"
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])), authorization
