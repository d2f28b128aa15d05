"""What became of notifications: delivered, given up, or still retried."""

from __future__ import annotations

import time

from jobs.model.job import Message
from orchestrator.cli import home_access
from orchestrator.core.app import App
from orchestrator.formatting import text as fmt

WEEK_S = 7 * 24 * 3600.0
"""Messages that lq gave up are listed this long."""

_SETTLED = {
    "delivered": "delivered",
    "gave_up": "given up after a day",
    "folded": "merged into another message",
    "nobody": "no service subscribed",
}


def undelivered(app: App) -> list[Message]:
    """Return the messages that a service has refused so far, and those given up within a week."""
    if not home_access.has_store(app):
        return []
    messages = app.store.outbox.undelivered(time.time() - WEEK_S)
    return [one for one in messages if one.settled is not None or any(service.tries for service in one.services)]


def undelivered_line(message: Message) -> str:
    """Return which services did not get a message, and what happens to it."""
    about = f" of job {message.job_id}" if message.job_id is not None else ""
    return f"not delivered: {message.event}{about}, {fmt.clock(message.created_at)}: {delivery(message)}"


def delivery(message: Message) -> str:
    """Return what became of a message, service by service."""
    results = ", ".join(f"{one.service} {one.last_result}" for one in message.services) or "not tried"
    if message.settled is None:
        return f"open, next try {fmt.clock(message.next_try_at)}: {results}"
    return f"{_SETTLED.get(message.settled, message.settled)}: {results}"
