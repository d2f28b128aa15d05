"""notify: list and test the services. URLs are never shown."""

from __future__ import annotations

import click

from orchestrator.cli import output, reach
from orchestrator.cli.output import json_option


@click.group()
def notify() -> None:
    """List and test the notification services of settings.yaml."""


@notify.command(name="list")
@json_option
def list_(as_json: bool) -> None:
    """List the services by name, with their tags and events; never their URLs."""
    from orchestrator.notify import DEFAULT_EVENTS, service_names

    with reach.opened() as app:
        services = app.settings().notify.services
        entries = [
            {"name": name, "tags": list(service.tags), "on": sorted(service.on or DEFAULT_EVENTS)}
            for name, service in zip(service_names(services), services, strict=True)
        ]
        if as_json:
            output.print_json({"services": entries})
            return
        for entry in entries:
            tags = ", ".join(entry["tags"]) or "none"
            click.echo(f"{entry['name']}: hears {', '.join(entry['on'])}; tags: {tags}")
        if not entries:
            click.echo(f"nobody is told; add services to {app.home.settings} (see README, Notifications)")


@notify.command()
@json_option
def test(as_json: bool) -> int:
    """Send a test message to every service, and say what became of it; exit code 6 if one failed."""
    from orchestrator.notify import Notifier, test_services

    with reach.opened() as app:
        results = test_services(Notifier(app.settings().notify.services))
        if as_json:
            rows = [{"name": one.service, "delivered": one.delivered, "result": one.last_result} for one in results]
            output.print_json({"services": rows})
        else:
            for one in results:
                click.echo(f"{one.service}: {one.last_result}")
            if not results:
                click.echo(f"nobody is told; add services to {app.home.settings} (see README, Notifications)")
    return 0 if all(one.delivered for one in results) else 6
