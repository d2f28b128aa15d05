"""`lq notify list` and `lq notify test`. They never print a URL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, get_args

import click

from jobs.model.job import Message
from orchestrator.cli import home_access, output
from orchestrator.cli.output import json_option
from orchestrator.cli.views.snapshot import undelivered
from orchestrator.core.app import App
from orchestrator.formatting import text as fmt

if TYPE_CHECKING:
    from configs.settings import NotifySettings
    from orchestrator.results.machine import NotifyListResult


@click.group()
def notify() -> None:
    """List or test the notification services of settings.yaml."""


@notify.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List the notification services with their tags and events, and the messages they have not received."""
    with home_access.open_app() as app:
        settings, result = app.settings().notify, _result(app)
        if as_json:
            output.print_json(result)
            return
        for service in result.services:
            click.echo(f"{service.name}: {', '.join(service.on)}; tags: {', '.join(service.tags) or 'none'}")
        if not result.services:
            click.echo(_no_service(app))
        for line in (*_schedule(settings), *map(_undelivered_line, result.undelivered)):
            click.echo(line)


def _result(app: App) -> NotifyListResult:
    from configs.settings import ServiceEvent
    from orchestrator.notify.routing import DEFAULT_EVENTS, service_names
    from orchestrator.results.machine import NotificationService, NotifyListResult

    settings, services = app.settings().notify, []
    for name, service in zip(service_names(settings.everyone), settings.everyone, strict=True):
        wanted = DEFAULT_EVENTS if service.on is None else service.on
        on = [event for event in get_args(ServiceEvent) if event in wanted]
        services.append(NotificationService(name=name, tags=list(service.tags), on=on))
    return NotifyListResult(
        services=services,
        digest=settings.digest,
        quiet=settings.quiet,
        ping=settings.ping is not None,
        undelivered=undelivered(app),
    )


def _schedule(settings: NotifySettings) -> Iterator[str]:
    if settings.digest is not None:
        yield f"digest: every day at {settings.digest}"
    if settings.quiet is not None:
        yield f"quiet: {settings.quiet}; only urgent messages are sent"
    if settings.ping is not None:
        yield "ping: every minute while a worker runs"


def _no_service(app: App) -> str:
    return f"no notification service configured; add services to {app.home.settings}"


def _undelivered_line(message: Message) -> str:
    """Return which services did not get a message, and what happens to it."""
    from orchestrator.cli.views.job import delivery

    about = f" of job {message.job_id}" if message.job_id is not None else ""
    return f"not delivered: {message.event}{about}, {fmt.clock(message.created_at)}: {delivery(message)}"


@notify.command()
@json_option
def test(as_json: bool) -> int:
    """Send a test message to every service.

    Exit code: 6 if a service did not receive it.
    """
    from orchestrator.notify.apprise_sender import Notifier, send_test
    from orchestrator.notify.heartbeat import ANSWERED, ping

    with home_access.open_app() as app:
        settings = app.settings().notify
        deliveries = send_test(Notifier(settings.everyone))
        answer = ping(settings.ping) if settings.ping is not None else None
        if as_json:
            from orchestrator.results.machine import NotifyTestResult, TestMessage

            messages = [
                TestMessage(name=one.service, delivered=one.delivered, result=one.last_result) for one in deliveries
            ]
            output.print_json(NotifyTestResult(services=messages, ping=answer))
        else:
            for delivery in deliveries:
                click.echo(f"{delivery.service}: {delivery.last_result}")
            if answer is not None:
                click.echo(f"ping: {answer}")
            if not deliveries:
                click.echo(_no_service(app))
    return 0 if all(delivery.delivered for delivery in deliveries) and answer in (None, ANSWERED) else 6
