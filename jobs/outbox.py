"""When a message of the outbox is tried again, and when it is done with. Pure: time and chance are arguments."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

from jobs.job import ServiceResult

FIRST_DELAY_S = 30.0
LONGEST_DELAY_S = 1800.0
GIVE_UP_AFTER_S = 24 * 3600.0

NO_LONGER_CONFIGURED = "no longer configured"
"""The last result of a service that has left settings.yaml, or does not want the message any more."""

Settled = Literal["delivered", "gave_up", "nobody"]
"""Why no service is tried any more."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NextTry:
    """The answer: a time, or the reason why there is none."""

    at: float | None  # unix seconds; None once settled
    settled: Settled | None  # None while a service is still to be tried


def next_try(services: Sequence[ServiceResult], *, created_at: float, now: float, jitter: float) -> NextTry:
    """Decide what becomes of a message after its services were tried.

    The delay is 30 s * 2^n, at most 30 min. The last try falls at 24 hours; a machine that slept past them makes
    it when it wakes.

    Args:
        services: every service that was to hear it, with the results so far; empty where nobody listens.
        created_at: when the message was written, unix seconds.
        now: unix seconds.
        jitter: 0..1, spreads the delay by up to a tenth.
    """
    pending = [service for service in services if is_pending(service)]
    if not pending:
        heard = any(service.delivered for service in services)
        return NextTry(at=None, settled="delivered" if heard else "nobody")
    give_up_at = created_at + GIVE_UP_AFTER_S
    if now >= give_up_at:
        return NextTry(at=None, settled="gave_up")
    return NextTry(at=min(now + _delay(max(service.tries for service in pending), jitter), give_up_at), settled=None)


def is_pending(service: ServiceResult) -> bool:
    """Return whether this service is still owed the message."""
    return not service.delivered and service.last_result != NO_LONGER_CONFIGURED


def _delay(tries: int, jitter: float) -> float:
    doublings = min(max(tries - 1, 0), 16)  # far past the longest delay, far below what a float can hold
    return min(FIRST_DELAY_S * 2.0**doublings, LONGEST_DELAY_S) * (1 + 0.1 * jitter)
