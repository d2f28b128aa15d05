"""The dead-man switch: a GET every minute in which the worker lives; a service elsewhere notices when they stop.

The URL is a secret as those of notify.py are: no word of it, and no error that may hold one, leaves this room.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from jobs.model.errors import SecretMissing
from orchestrator.notify.secrets import filled

if TYPE_CHECKING:
    from pydantic import SecretStr

TIMEOUT_S = 10.0
LEAST_PAUSE_S = 50.0
"""Ticks come a minute apart and once at the worker's start; none of them pings twice in a minute."""

ANSWERED = "answered"

log = logging.getLogger("lq.ping")


class Pinger:
    """Pings from a thread of its own, at most one at a time: a slow or dead service holds nothing up."""

    def __init__(self, *, timeout_s: float = TIMEOUT_S) -> None:
        """Begin without having pinged.

        Args:
            timeout_s: seconds after which a service that has not answered is left behind.
        """
        self._last_result = ANSWERED
        self._timeout_s = timeout_s
        self._pinged_at = float("-inf")
        self._thread: threading.Thread | None = None

    def beat(self, url: SecretStr) -> None:
        """Ping, unless the last one was less than a minute ago or is still under way; returns at once."""
        busy = self._thread is not None and self._thread.is_alive()
        if busy or time.monotonic() - self._pinged_at < LEAST_PAUSE_S:
            return
        self._pinged_at = time.monotonic()
        self._thread = threading.Thread(target=self._ping, args=(url,), name="lq-ping", daemon=True)
        self._thread.start()

    def _ping(self, url: SecretStr) -> None:
        result = ping(url, timeout_s=self._timeout_s)
        if result != self._last_result:  # a line a minute would bury the rest of the log
            log.log(logging.INFO if result == ANSWERED else logging.WARNING, "the ping: %s", result)
        self._last_result = result


def ping(url: SecretStr, *, timeout_s: float = TIMEOUT_S) -> str:
    """GET a URL once, and return `answered` or why not, in words that hold nothing of it.

    Args:
        url: http or https.
        timeout_s: seconds.
    """
    import http.client
    import ssl
    import urllib.error
    import urllib.request

    try:
        place, headers = _addressed(filled(url.get_secret_value()))
        if not place.lower().startswith(("http://", "https://")):
            return "not understood"
        request = urllib.request.Request(place, headers=headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:  # noqa: S310 looked at above
            answer.read(1)
    except SecretMissing as error:
        return str(error)
    except urllib.error.HTTPError as error:
        error.close()
        return f"answered {error.code}"
    except ssl.SSLError:
        return "not trusted"
    except TimeoutError:
        return "timed out"
    except urllib.error.URLError as error:
        return _reason(error.reason)
    except (OSError, ValueError, http.client.HTTPException):
        return "failed"
    return ANSWERED


def _addressed(url: str) -> tuple[str, dict[str, str]]:
    """Return a URL without its user and password, and the headers that carry them: urllib takes none in a URL."""
    import base64
    from urllib.parse import unquote, urlsplit, urlunsplit

    parts = urlsplit(url)
    headers = {"User-Agent": "lq"}
    if parts.username is not None:
        words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(words.encode()).decode()}"
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])), headers


def _reason(reason: object) -> str:
    import ssl

    if isinstance(reason, ssl.SSLError):
        return "not trusted"
    if isinstance(reason, TimeoutError):
        return "timed out"
    return "refused" if isinstance(reason, ConnectionRefusedError) else "failed"
