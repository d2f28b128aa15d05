"""When a message of the outbox is sent, tried again, included in another message, or given up."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import tzinfo
from typing import Literal

from jobs.model import time_windows
from jobs.model.job import Message, ServiceResult
from jobs.model.time_windows import TimeWindow

FIRST_DELAY_S = 30.0
LONGEST_DELAY_S = 1800.0
GIVE_UP_AFTER_S = 24 * 3600.0

MIN_INTERVAL_S = 900.0
"""Minimum time between two messages of one event about one job; the next message includes those in between."""

DIGEST = "digest"
DIGEST_LATE_S = 4 * 3600.0
"""A digest that was not sent on time is still sent within this time; later, the next digest covers both days."""

URGENT = frozenset({"needs_you", "deadline"})
"""Events that are sent in quiet hours too, because only you can do something about them."""

_ENDS = frozenset({"failed", "finished"})
_ON_THE_WAY = frozenset({"submitted", "started", "recovered", "spike_handled"})

NO_LONGER_CONFIGURED = "no longer configured"
"""The last result of a service that was removed from settings.yaml or no longer receives the event."""

INCLUDED_LATER = "included in a later message"
INCLUDED_AT_END = "included in the final message"
INCLUDED_IN_DIGEST = "included in the digest"
_INCLUDED = frozenset({INCLUDED_LATER, INCLUDED_AT_END, INCLUDED_IN_DIGEST})
"""Last results of services to which another message brings the content."""

Settled = Literal["delivered", "gave_up", "folded", "nobody"]
"""Why the message is not tried again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NextTry:
    """The time of the next try, or the reason why there is none."""

    at: float | None  # unix seconds; None once settled
    settled: Settled | None  # None while a try is pending


def due_at(previous: float | None, now: float) -> float:
    """Return when a new message is sent: now, or MIN_INTERVAL_S after the last one of its event and job, if any."""
    if previous is None or previous + MIN_INTERVAL_S <= now:
        return now
    # a predecessor that still waits includes the new one; a clock that was set back does not prolong the wait
    return min(previous if previous > now else previous + MIN_INTERVAL_S, now + MIN_INTERVAL_S)


def quiet_until(event: str, now: float, quiet: TimeWindow | None, zone: tzinfo | None) -> float | None:
    """Return the end of the quiet hours that delay a message; None if it is not delayed.

    Urgent events are not delayed, nor is the digest, whose time the user has set.
    """
    if quiet is None or event in URGENT or event == DIGEST:
        return None
    return time_windows.until(quiet, now, zone)


def next_try(services: Sequence[ServiceResult], *, first_try: float, now: float, jitter: float) -> NextTry:
    """Decide when a message is tried again, from the results of all its services.

    The delay is 30 s * 2^n, at most 30 min, and up to a tenth more by `jitter` (0 to 1). The last try is 24 hours after
    the first, or when a sleeping machine wakes.
    """
    pending = [service for service in services if is_pending(service)]
    if not pending:
        return NextTry(at=None, settled=_end(services))
    give_up_at = first_try + GIVE_UP_AFTER_S
    if now >= give_up_at:
        return NextTry(at=None, settled="gave_up")
    return NextTry(at=min(now + _delay(max(service.tries for service in pending), jitter), give_up_at), settled=None)


def is_pending(service: ServiceResult) -> bool:
    """Return whether the message must still be delivered to this service."""
    return (
        not service.delivered and service.last_result != NO_LONGER_CONFIGURED and service.last_result not in _INCLUDED
    )


def included_in(message: Message, other: Message, now: float) -> str | None:
    """Return how another message includes this one, as the last result of a service; None if it does not.

    A later message of the same event about the same job includes this one once it is due, unless a service already
    received this one. The end of the job includes earlier events, and the digest everything that is not urgent.
    """
    if other.id <= message.id or other.settled == "gave_up" or message.event == DIGEST:
        return None
    if other.event == DIGEST:
        return None if message.event in URGENT else INCLUDED_IN_DIGEST
    if message.job_id is None or other.job_id != message.job_id:
        return None
    if other.event == message.event:
        delivered = any(service.delivered for service in message.services)
        return INCLUDED_LATER if not delivered and (other.due_at or other.created_at) <= now else None
    return INCLUDED_AT_END if message.event in _ON_THE_WAY and other.event in _ENDS else None


def occurrences(message: Message, earlier: Sequence[Message]) -> list[Message]:
    """Return the messages that a message includes, itself last, and the delivered one that it waited for.

    `earlier` are those of the same event about the same job, oldest first.
    """
    included = [message]
    for before in reversed(earlier):
        results = {service.last_result for service in before.services}
        if any(service.delivered for service in before.services) or results & {INCLUDED_AT_END, INCLUDED_IN_DIGEST}:
            if (included[-1].due_at or 0.0) > included[-1].created_at:
                included.append(before)
            break
        included.append(before)
    return included[::-1]


def _end(services: Sequence[ServiceResult]) -> Settled:
    if any(service.delivered for service in services):
        return "delivered"
    return "folded" if any(service.last_result in _INCLUDED for service in services) else "nobody"


def _delay(tries: int, jitter: float) -> float:
    doublings = min(max(tries - 1, 0), 16)  # beyond the longest delay, and no overflow
    return min(FIRST_DELAY_S * 2.0**doublings, LONGEST_DELAY_S) * (1 + 0.1 * jitter)
