"""service: install, uninstall, status, print."""

from __future__ import annotations

import dataclasses
import getpass
import sys

import click

from orchestrator.cli import home_access, output
from orchestrator.cli.output import json_option
from orchestrator.core.app import App
from orchestrator.service import install as services
from orchestrator.service import units
from orchestrator.service.managers import Manager, manager_of

_kind = click.option(
    "--kind",
    type=click.Choice(["launchd", "systemd"]),
    default=None,
    help="Of another system than this one.",
)


@click.group()
def service() -> None:
    """Have a worker started after a login or a reboot, and again when it dies."""


@service.command()
@_kind
@json_option
def install(kind: str | None, as_json: bool) -> None:
    """Install the service of this home and start it; a worker that runs already hands its jobs over."""
    with home_access.opened() as app:
        app.settings()
        fault = services.settings_fault(app.home)
        if fault is not None:
            output.note(f"a service has not the environment of this shell: {fault} (see README, After a reboot)")
        manager = _manager(kind)
        services.install(app.home, manager, _silent if as_json else click.echo)
        if manager.lingers() is False:
            linger = f"sudo loginctl enable-linger {getpass.getuser()}"
            output.note(f"it starts at login and ends at logout; to have it from boot on: {linger}")
        if as_json:
            _print_state(app, manager)


@service.command()
@_kind
@json_option
def uninstall(kind: str | None, as_json: bool) -> None:
    """Stop the service and remove it. Running jobs write a checkpoint and pause."""
    manager = _manager(kind)
    services.uninstall(manager, _silent if as_json else click.echo)
    if as_json:
        with home_access.opened() as app:
            _print_state(app, manager)


@service.command()
@_kind
@json_option
def status(kind: str | None, as_json: bool) -> None:
    """Say whether the service is installed, starts at login, runs, and is what this lq would install."""
    with home_access.opened() as app:
        if as_json:
            _print_state(app, _manager(kind))
            return
        found = services.state(app.home, _manager(kind))
    for line in _lines(found, str(app.home.path)):
        click.echo(line)


@service.command(name="print")
@_kind
@json_option
def print_(kind: str | None, as_json: bool) -> None:
    """Print what would be installed."""
    with home_access.opened() as app:
        manager = _manager(kind)
        text = manager.content(services.plan_for(app.home)).decode()
    if as_json:
        output.print_json({"service": {"kind": manager.kind, "path": str(manager.file()), "text": text}})
        return
    click.echo(text, nl=False)
    if sys.stdout.isatty():
        output.note(f"lq service install would write it to {manager.file()}")


def _silent(_: str) -> None:
    """Say nothing: with --json the state afterwards says it."""


def _print_state(app: App, manager: Manager) -> None:
    output.print_json({"service": dataclasses.asdict(services.state(app.home, manager))})


def _manager(kind: str | None) -> Manager:
    return manager_of(kind or units.native_kind())


def _lines(found: services.ServiceState, home: str) -> list[str]:
    if not found.installed:
        answer = f"{found.kind} cannot be asked here: {found.missing}" if found.missing else "lq service install"
        return [f"service: not installed ({answer})"]
    lines = [f"service: installed, {found.path}, for {found.home or 'no home that can be read'}"]
    if found.home != home:
        lines.append(f"home: another one than {home}")
    if found.outdated:
        lines.append("file: not what this lq would install; bring it up to date: lq service install")
    if found.missing is not None:
        return [*lines, f"{found.kind}: cannot be asked here ({found.missing})"]
    lines.append(f"at login: {'starts' if found.enabled else 'does not start; mend it: lq service install'}")
    lines.append(f"worker: pid {found.pid}" if found.pid is not None else "worker: none of the service's runs")
    if found.lingers is not None:
        mend = f"does not run; sudo loginctl enable-linger {getpass.getuser()}"
        lines.append(f"without a login: {'runs too' if found.lingers else mend}")
    return lines
