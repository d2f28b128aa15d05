"""From the outbox to the services: what is due is sent, what another message tells is not sent twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import tzinfo
from typing import TYPE_CHECKING

from jobs.model.job import Message, ServiceResult
from jobs.model.time_windows import TimeWindow
from jobs.policies import delivery
from jobs.policies.delivery import NO_LONGER_CONFIGURED, is_pending
from orchestrator.notify import messages
from orchestrator.notify.routing import wants

if TYPE_CHECKING:
    from jobs.model.spec import NotifyEvent
    from orchestrator.notify.apprise_sender import Notifier
    from orchestrator.store.store import Store


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moment:
    """When a delivery takes place."""

    now: float  # unix seconds
    jitter: float  # 0..1, spreads the next try
    quiet: TimeWindow | None = None  # quiet hours
    zone: tzinfo | None = None  # whose hours; None for the machine's own zone


def deliver(message_id: int, *, store: Store, notifier: Notifier, when: Moment) -> Message:
    """Try the services that are still owed a message, and store what came of it.

    At least once: a worker that dies between the sending and the storing sends again. A row that is settled or not
    yet due is left alone, so a task may be doubled.

    Args:
        message_id: row of the outbox.
        store: holds it.
        notifier: knows the services as settings.yaml has them now.
        when: the moment, and the quiet hours.
    """
    with notifier.turn:
        message = store.outbox.get(message_id)
        if message.settled is not None or (message.next_try_at or when.now) > when.now:
            return message
        held = delivery.quiet_until(message.event, when.now, when.quiet, when.zone)
        if held is not None:
            _record(store, message, message.services, at=held, settled=None, now=when.now)
            return store.outbox.get(message_id)
        results = _try(message, store, notifier, when)
        then = delivery.next_try(results, first_try=_first_try(message, when), now=when.now, jitter=when.jitter)
        _record(store, message, results, at=then.at, settled=then.settled, now=when.now)
        return store.outbox.get(message_id)


def _record(
    store: Store,
    message: Message,
    results: tuple[ServiceResult, ...],
    *,
    at: float | None,
    settled: str | None,
    now: float,
) -> None:
    store.outbox.record_delivery(message.id, services=results, next_try_at=at, settled=settled, now=now)


def _first_try(message: Message, when: Moment) -> float:
    due = message.due_at or message.created_at
    return delivery.quiet_until(message.event, due, when.quiet, when.zone) or due


def _try(message: Message, store: Store, notifier: Notifier, when: Moment) -> tuple[ServiceResult, ...]:
    """Send a message to whom it is owed, and return every service's result."""
    kin = store.outbox.related(message)
    wanted = _audience(message, store, notifier)
    results = {result.service: result for result in message.services}
    for name, result in results.items():
        if is_pending(result) and name not in wanted:
            results[name] = dataclasses.replace(result, last_result=NO_LONGER_CONFIGURED)
    owed = [name for name in wanted if name not in results or is_pending(results[name])]
    for name, how in _told_elsewhere(message, kin, owed, store, notifier, when.now).items():
        before = results.get(name) or ServiceResult(service=name, delivered=False, tries=0, last_result=how)
        results[name] = dataclasses.replace(before, last_result=how)
        owed.remove(name)
    if owed:
        sent = notifier.send(_counted(message, kin, when), owed)
        results |= {result.service: result for result in sent}
    return tuple(results.values())


def _audience(message: Message, store: Store, notifier: Notifier) -> list[str]:
    job_on = None if message.job_id is None else _asked_by_job(store.jobs.spec_json(message.job_id))
    return wants(notifier.services, message.event, job_on=job_on, job_tags=message.tags)


def _asked_by_job(spec_json: str) -> tuple[NotifyEvent, ...] | None:
    from jobs.model.spec import JobSpec

    try:
        return JobSpec.model_validate_json(spec_json).lq.notify.on
    except ValueError:
        return None  # written by another version of lq: no reason to keep its end from the user


def _told_elsewhere(
    message: Message, kin: Sequence[Message], owed: Sequence[str], store: Store, notifier: Notifier, now: float
) -> dict[str, str]:
    """Return the services that hear of a message in another one, and how."""
    found: dict[str, str] = {}
    for other in kin:
        how = delivery.included_in(message, other, now)
        if how is not None:
            found |= {name: how for name in _audience(other, store, notifier) if name in owed and name not in found}
    return found


def _counted(message: Message, kin: Sequence[Message], when: Moment) -> Message:
    """Return a message as it is sent: one that stands for several says how many."""
    if message.job_id is None:
        return message
    earlier = [other for other in kin if other.event == message.event and other.id < message.id]
    return messages.counted(delivery.occurrences(message, earlier), when.zone)
