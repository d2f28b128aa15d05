"""Why a service did not receive a message, in fixed words: texts of libraries contain hosts, topics and passwords."""

from __future__ import annotations

import re

FAILED, TIMED_OUT = "failed", "timed out"

_STATUS = re.compile(r"\berror=(\d{3})\b")
_SIGNS = (
    ("connection refused", re.compile(r"connection refused|actively refused", re.IGNORECASE)),
    (
        "host name not found",
        re.compile(
            r"name or service not known|name resolution|nodename nor servname|getaddrinfo|no address", re.IGNORECASE
        ),
    ),
    ("certificate not trusted", re.compile(r"certificate|SSLError|SSL:|WRONG_VERSION_NUMBER", re.IGNORECASE)),
    ("login refused", re.compile(r"SMTPAuthentication|\(535\b", re.IGNORECASE)),
    ("network unreachable", re.compile(r"network is unreachable|no route to host", re.IGNORECASE)),
    (
        "connection closed",
        re.compile(r"connection aborted|RemoteDisconnected|reset by peer|broken pipe", re.IGNORECASE),
    ),
    (TIMED_OUT, re.compile(r"timed out|timeout", re.IGNORECASE)),
)


def reason_in(text: str) -> str:
    """Return the reason that the text of a library names; `failed` if it names none."""
    status = _STATUS.search(text)
    if status is not None:
        return f"HTTP status {status[1]}"
    return next((reason for reason, sign in _SIGNS if sign.search(text)), FAILED)
