"""notify: list and test the services. URLs are never shown."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, get_args

import click

from orchestrator.cli import home_access, output
from orchestrator.cli.output import json_option
from orchestrator.cli.views.messages import undelivered, undelivered_line
from orchestrator.core.app import App

if TYPE_CHECKING:
    from configs.settings import NotifySettings


@click.group()
def notify() -> None:
    """List and test the notification services of settings.yaml."""


@notify.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List the services by name, with their tags and events, never their URLs; and what they did not get."""
    with home_access.opened() as app:
        settings = app.settings().notify
        entries, missed = _entries(settings), undelivered(app)
        if as_json:
            set_up = {"digest": settings.digest, "quiet": settings.quiet, "ping": settings.ping is not None}
            rows = [dataclasses.asdict(message) for message in missed]
            output.print_json({"services": entries, **set_up, "undelivered": rows})
            return
        for entry in entries:
            tags = ", ".join(entry["tags"]) or "none"
            click.echo(f"{entry['name']}: hears {', '.join(entry['on'])}; tags: {tags}")
        if not entries:
            click.echo(_nobody(app))
        for line in (*_hours(settings), *map(undelivered_line, missed)):
            click.echo(line)


def _entries(settings: NotifySettings) -> list[dict[str, Any]]:
    from configs.settings import ServiceEvent
    from orchestrator.notify.routing import DEFAULT_EVENTS, service_names

    entries = []
    for name, service in zip(service_names(settings.everyone), settings.everyone, strict=True):
        hears = DEFAULT_EVENTS if service.on is None else service.on
        on = [event for event in get_args(ServiceEvent) if event in hears]
        entries.append({"name": name, "tags": list(service.tags), "on": on})
    return entries


def _hours(settings: NotifySettings) -> list[str]:
    return [
        *([f"digest: every morning at {settings.digest}"] if settings.digest is not None else []),
        *([f"quiet: {settings.quiet}; only what is urgent is sent then"] if settings.quiet is not None else []),
        *(["ping: every minute in which a worker lives"] if settings.ping is not None else []),
    ]


def _nobody(app: App) -> str:
    return f"nobody is told; add services to {app.home.settings} (see README, Settings and notifications)"


@notify.command()
@json_option
def test(as_json: bool) -> int:
    """Send a test message to every service, and say what became of it; exit code 6 if one failed."""
    from orchestrator.notify.apprise_sender import Notifier, send_test
    from orchestrator.notify.heartbeat import ANSWERED, ping

    with home_access.opened() as app:
        settings = app.settings().notify
        results = send_test(Notifier(settings.everyone))
        pinged = ping(settings.ping) if settings.ping is not None else None
        if as_json:
            rows = [{"name": one.service, "delivered": one.delivered, "result": one.last_result} for one in results]
            output.print_json({"services": rows, "ping": pinged})
        else:
            for one in results:
                click.echo(f"{one.service}: {one.last_result}")
            if pinged is not None:
                click.echo(f"ping: {pinged}")
            if not results:
                click.echo(_nobody(app))
    return 0 if all(one.delivered for one in results) and pinged in (None, ANSWERED) else 6
