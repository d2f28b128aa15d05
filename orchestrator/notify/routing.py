"""Who hears what: the services of settings.yaml by name, and the events that reach each. Sends nothing."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from jobs.policies.delivery import DIGEST

if TYPE_CHECKING:
    from configs.settings import Service

DEFAULT_EVENTS = frozenset({"recovered", "spike_handled", "needs_you", "deadline", "failed", "finished", DIGEST})
"""What a service hears where neither it nor the job says; `submitted` and `started` must be asked for."""

DESKTOP = "desktop"
"""Scheme, name and tag of the banner on this machine's own screen."""

_KIND = re.compile(r"\s*([A-Za-z][A-Za-z0-9]{0,19})://")


def service_names(services: Sequence[Service]) -> tuple[str, ...]:
    """Return what each service is called wherever a person or the store sees it; no two are the same.

    Its `name`, else kind and place such as `ntfy 2`, of which the kind is the URL's scheme and nothing else is.
    """
    taken: list[str] = []
    for place, service in enumerate(services, start=1):
        name = service.name or f"{kind(service)} {place}"
        while name in taken:
            name = f"{name} ({place})"
        taken.append(name)
    return tuple(taken)


def kind(service: Service) -> str:
    """Return a service's scheme in small letters, `service` where its URL has none."""
    scheme = _KIND.match(service.url.get_secret_value())
    return scheme[1].lower() if scheme else "service"


def wants(
    services: Sequence[Service],
    event: str,
    *,
    job_on: Collection[str] | None,
    job_tags: Collection[str] | None,
) -> list[str]:
    """Return the names of the services that hear about an event.

    Args:
        services: of settings.yaml, in its order.
        event: jobs.spec.Event, or digest.
        job_on: `lq.notify.on` of the job; None leaves it to the services.
        job_tags: `lq.notify.tags` of the job; None means every service, else one tag must be in common.

    Returns:
        Those whose own `on` and the job's both hold the event. One that is silent leaves it to the other; where
        both are, `DEFAULT_EVENTS` holds.
    """
    return [
        name
        for name, service in zip(service_names(services), services, strict=True)
        if event in _events(service, job_on) and (job_tags is None or not set(job_tags).isdisjoint(service.tags))
    ]


def _events(service: Service, job_on: Collection[str] | None) -> Collection[str]:
    if service.on is None:
        return DEFAULT_EVENTS if job_on is None else job_on
    return service.on if job_on is None else set(service.on).intersection(job_on)
