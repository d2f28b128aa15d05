"""Messages that notification services did not get, and what became of each message."""

from __future__ import annotations

import time

from jobs.model.job import Message
from orchestrator.cli import home_access
from orchestrator.core.app import App
from orchestrator.formatting import text as fmt

WEEK_S = 7 * 24 * 3600.0
"""Messages that were given up are spoken of so long."""


def undelivered(app: App) -> list[Message]:
    """Return the messages that a service has refused so far, and those given up within a week."""
    if not home_access.has_store(app):
        return []
    found = app.store.outbox.undelivered(time.time() - WEEK_S)
    return [one for one in found if one.settled is not None or any(service.tries for service in one.services)]


def missed_line(message: Message) -> str:
    """Say which message which services did not get, and what becomes of it."""
    about = f" of job {message.job_id}" if message.job_id is not None else ""
    return f"not delivered: {message.event}{about}, {fmt.clock(message.created_at)}: {fate(message)}"


def fate(message: Message) -> str:
    """Say what became of a message, service by service."""
    results = ", ".join(f"{one.service} {one.last_result}" for one in message.services)
    words = {
        "delivered": "delivered",
        "gave_up": "given up after a day",
        "folded": "told with another message",
        "nobody": "nobody listens",
        None: f"open, next try {fmt.clock(message.next_try_at)}",
    }
    return f"{words.get(message.settled, message.settled)}: {results or 'not tried'}"
