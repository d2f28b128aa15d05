"""`lq notify list`, `lq notify add` and `lq notify test`. They never print a URL."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, get_args

import click

from jobs.model.errors import CheckFailed, ConfigInvalid, InvalidInput, NotAllowed
from jobs.model.job import Message
from orchestrator.cli import home_access, output
from orchestrator.cli.output import json_option
from orchestrator.cli.views.snapshot import undelivered
from orchestrator.core.app import App
from orchestrator.formatting import text as fmt
from orchestrator.notify.routing import kind
from workers.files.atomic import write_atomically

if TYPE_CHECKING:
    from configs.settings import NotifySettings, Service
    from orchestrator.results.machine import NotifyListResult

_SERVICES = "see: https://appriseit.com/services/"


@click.group()
def notify() -> None:
    """List, add or test the notification services of settings.yaml."""


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
            click.echo(_no_service())
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


def _no_service() -> str:
    return "no notification service configured; add one: lq notify add URL"


def _undelivered_line(message: Message) -> str:
    """Return which services did not get a message, and what happens to it."""
    from orchestrator.cli.views.job import delivery

    about = f" of job {message.job_id}" if message.job_id is not None else ""
    return f"not delivered: {message.event}{about}, {fmt.clock(message.created_at)}: {delivery(message)}"


@notify.command()
@click.argument("url", metavar="URL")
@click.option("--name", metavar="NAME", help="Name of the service in lq's output.")
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="Tag that jobs select it by. Repeatable.")
@click.option("--on", "events", metavar="EVENT", multiple=True, help="Event that it receives. Repeatable.")
@click.option("--no-test", is_flag=True, help="Do not send a test message.")
@json_option
def add(url: str, name: str | None, tags: Sequence[str], events: Sequence[str], no_test: bool, as_json: bool) -> None:
    """Add a notification service to settings.yaml, after a test message has reached it.

    URL is an Apprise URL such as ntfy://ntfy.sh/my-topic, or - to read it from stdin, which keeps it out of the history
    of the shell. Comments and other settings stay. Exit code: 6 if the service did not receive the message.
    """
    typed = sys.stdin.readline() if url == "-" else url
    others = {"name": name, "tags": list(tags), "on": list(events)}
    with home_access.open_app() as app:
        fields = {"url": typed.strip()} | {key: value for key, value in others.items() if value}
        content, added = _with_service(app, fields)
        word = added.name or "the service"
        result = "not tested" if no_test else _tried(added)
        app.home.ensure()
        write_atomically(app.home.settings.resolve(), content)
        app.home.settings.chmod(0o600)
        if as_json:
            from orchestrator.results.machine import TestMessage

            about = TestMessage(name=added.name or kind(added), delivered=not no_test, result=result)
            output.print_json(about, under="service")
        else:
            click.echo(f"{word} added to {app.home.settings}; test message: {result}")


def _with_service(app: App, fields: Mapping[str, object]) -> tuple[bytes, Service]:
    """Return the content of settings.yaml with a service, and the service.

    Raises:
        ConfigInvalid: the present file is invalid.
        InvalidInput: the service is invalid, or the file has a form that cannot be edited.
        NotAllowed: the file has the URL already.
    """
    from configs.settings import load_settings
    from configs.yaml_text import with_item
    from orchestrator.notify.apprise_sender import fault_of

    path, present = app.home.settings, app.settings().notify.services
    try:
        text = path.read_bytes().decode() if path.exists() else ""
        content = with_item(text, ("notify", "services"), fields).encode()
    except ValueError:
        text = f"{path}: lq cannot add a service to notify.services in this form; write it as a list of mappings"
        raise InvalidInput(text) from None
    try:
        added = load_settings(path, content=content).notify.services[-1]
    except ConfigInvalid as error:
        why = re.sub(r"^.*?notify\.services\S*?\.(?=\w)", "", str(error))
        raise InvalidInput(f"the service is not valid: {why}") from None
    for place, one in enumerate(present, start=1):
        if one.url.get_secret_value().rstrip("/") == added.url.get_secret_value().rstrip("/"):
            raise NotAllowed(f"{path}: service {one.name or place} has this URL already")
    if (fault := fault_of(added)) is not None:
        raise InvalidInput(f"the service is not valid: {fault}" + (" " if fault.endswith("?") else "; ") + _SERVICES)
    return content, added


def _tried(service: Service) -> str:
    """Send a test message to one service; return the result."""
    from orchestrator.notify.apprise_sender import Notifier, send_test

    (sent,) = send_test(Notifier([service]))
    if not sent.delivered:
        remedy = "nothing was written; add it without a test: --no-test"
        raise CheckFailed(f"the service did not receive the test message ({sent.last_result}); {remedy}")
    return sent.last_result


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
                click.echo(_no_service())
    return 0 if all(delivery.delivered for delivery in deliveries) and answer in (None, ANSWERED) else 6
