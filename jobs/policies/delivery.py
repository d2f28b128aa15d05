"""When a message of the outbox is sent, tried again, told by another one, and done with. Pure: time is an argument."""

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

ONE_OF_A_KIND_S = 900.0
"""At most one message of an event about a job in so long; those that come meanwhile are told together after it."""

DIGEST = "digest"
DIGEST_LATE_S = 4 * 3600.0
"""A digest whose hour the worker missed is still sent so much later; after that the next one tells of both days."""

URGENT = frozenset({"needs_you", "deadline"})
"""What quiet hours do not hold back: each asks for something that only a person can do, and every hour costs."""

_ENDS = frozenset({"failed", "finished"})
_ON_THE_WAY = frozenset({"submitted", "started", "recovered", "spike_handled"})

NO_LONGER_CONFIGURED = "no longer configured"
"""The last result of a service that has left settings.yaml, or does not want the message any more."""

TOLD_LATER = "told with a later one"
TOLD_BY_END = "told with the job's end"
TOLD_BY_DIGEST = "told in the digest"
_TOLD = frozenset({TOLD_LATER, TOLD_BY_END, TOLD_BY_DIGEST})
"""The last result of a service that heard of it in another message."""

Settled = Literal["delivered", "gave_up", "folded", "nobody"]
"""Why no service is tried any more."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NextTry:
    """The answer: a time, or the reason why there is none."""

    at: float | None  # unix seconds; None once settled
    settled: Settled | None  # None while a service is still to be tried


def due_at(previous: float | None, now: float) -> float:
    """Return when a new message is sent first: now, or when the quarter of an hour after its predecessor is over.

    Args:
        previous: when the last message of this event about this job was, or will be, due; None where there is none.
        now: unix seconds.
    """
    if previous is None or previous + ONE_OF_A_KIND_S <= now:
        return now
    # one that waits itself takes the new one along; no clock that was set back makes it wait longer
    return min(previous if previous > now else previous + ONE_OF_A_KIND_S, now + ONE_OF_A_KIND_S)


def held_until(event: str, now: float, quiet: TimeWindow | None, zone: tzinfo | None) -> float | None:
    """Return until when quiet hours hold a message back, None where they do not.

    Args:
        event: what it tells; `URGENT` ones pass, and so does the digest, whose hour the user has set.
        now: unix seconds.
        quiet: the quiet hours, None where there are none.
        zone: whose hours; None for the machine's own zone.
    """
    if quiet is None or event in URGENT or event == DIGEST:
        return None
    return time_windows.until(quiet, now, zone)


def next_try(services: Sequence[ServiceResult], *, first_try: float, now: float, jitter: float) -> NextTry:
    """Decide what becomes of a message after its services were tried.

    The delay is 30 s * 2^n, at most 30 min. The last try falls at 24 hours; a machine that slept past them makes
    it when it wakes.

    Args:
        services: every service that was to hear it, with the results so far; empty where nobody listens.
        first_try: when it could first be sent, unix seconds.
        now: unix seconds.
        jitter: 0..1, spreads the delay by up to a tenth.
    """
    pending = [service for service in services if is_pending(service)]
    if not pending:
        return NextTry(at=None, settled=_end(services))
    give_up_at = first_try + GIVE_UP_AFTER_S
    if now >= give_up_at:
        return NextTry(at=None, settled="gave_up")
    return NextTry(at=min(now + _delay(max(service.tries for service in pending), jitter), give_up_at), settled=None)


def is_pending(service: ServiceResult) -> bool:
    """Return whether this service is still owed the message."""
    return not service.delivered and service.last_result != NO_LONGER_CONFIGURED and service.last_result not in _TOLD


def told_by(message: Message, other: Message, now: float) -> str | None:
    """Return how another message tells what this one would, as a service's last result; None where it does not.

    One of the same event about the same job, once it is due itself, tells of both where nobody has heard this one yet.
    The job's end tells of what was on the way to it, the digest of everything that is not urgent.

    Args:
        message: not yet delivered.
        other: any message.
        now: unix seconds.
    """
    if other.id <= message.id or other.settled == "gave_up" or message.event == DIGEST:
        return None
    if other.event == DIGEST:
        return None if message.event in URGENT else TOLD_BY_DIGEST
    if message.job_id is None or other.job_id != message.job_id:
        return None
    if other.event == message.event:
        told_already = any(service.delivered for service in message.services)  # then no later one counts it
        return TOLD_LATER if not told_already and (other.due_at or other.created_at) <= now else None
    return TOLD_BY_END if message.event in _ON_THE_WAY and other.event in _ENDS else None


def occurrences(message: Message, earlier: Sequence[Message]) -> list[Message]:
    """Return the messages that one message counts, itself last: those it tells of, and the told one it had to wait for.

    Args:
        message: about to be sent.
        earlier: of the same event about the same job, oldest first.
    """
    found = [message]
    for before in reversed(earlier):
        results = {service.last_result for service in before.services}
        if any(service.delivered for service in before.services) or results & {TOLD_BY_END, TOLD_BY_DIGEST}:
            if (found[-1].due_at or 0.0) > found[-1].created_at:
                found.append(before)
            break
        found.append(before)
    return found[::-1]


def _end(services: Sequence[ServiceResult]) -> Settled:
    if any(service.delivered for service in services):
        return "delivered"
    return "folded" if any(service.last_result in _TOLD for service in services) else "nobody"


def _delay(tries: int, jitter: float) -> float:
    doublings = min(max(tries - 1, 0), 16)  # far past the longest delay, far below what a float can hold
    return min(FIRST_DELAY_S * 2.0**doublings, LONGEST_DELAY_S) * (1 + 0.1 * jitter)
