"""Which services receive which event: the services of settings.yaml by name, and the routing rule. Sends nothing."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from jobs.policies.delivery import DIGEST

if TYPE_CHECKING:
    from configs.settings import Service

DEFAULT_EVENTS = frozenset({"recovered", "spike_handled", "needs_you", "deadline", "failed", "finished", DIGEST})
"""Events of a service if neither it nor the job has `on`; `submitted` and `started` must be listed."""

DESKTOP = "desktop"
"""URL scheme, default name and tag of the banner on this machine's screen."""

_KIND = re.compile(r"\s*([A-Za-z][A-Za-z0-9]{0,19})://")


def service_names(services: Sequence[Service]) -> tuple[str, ...]:
    """Return a unique name for each service, the only name that users and the store see.

    The name is `name` of settings.yaml, otherwise scheme and position, such as `ntfy 2`: nothing else of the URL.
    """
    taken: list[str] = []
    for place, service in enumerate(services, start=1):
        name = service.name or f"{kind(service)} {place}"
        while name in taken:
            name = f"{name} ({place})"
        taken.append(name)
    return tuple(taken)


def kind(service: Service) -> str:
    """Return the scheme of a service's URL in lower case, or `service` if the URL has none."""
    scheme = _KIND.match(service.url.get_secret_value())
    return scheme[1].lower() if scheme else "service"


def audience(
    services: Sequence[Service],
    event: str,
    *,
    job_on: Collection[str] | None,
    job_tags: Collection[str] | None,
) -> list[str]:
    """Return the names of the services that receive an event, in the order of settings.yaml.

    A service receives the event if its own `on` and the job's `on` both list it. If one of them is missing, the other
    one decides; without both, `DEFAULT_EVENTS` applies. It must have one of `job_tags`; None for every service.
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
