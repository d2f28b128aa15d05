"""`lq service`: install, uninstall, status, print."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Iterator

import click

from orchestrator.cli import home_access, output
from orchestrator.cli.output import json_option
from orchestrator.core.app import App
from orchestrator.service import install as services
from orchestrator.service import units
from orchestrator.service.managers import Manager, manager_of

_kind_option = click.option(
    "--kind", type=click.Choice(["launchd", "systemd"]), help="Use this service manager instead of the native one."
)


@click.group()
def service() -> None:
    """Install the worker as a service that starts at login or boot and restarts after a crash."""


@service.command()
@_kind_option
@json_option
def install(kind: str | None, as_json: bool) -> None:
    """Install and start the service of this home. A running worker hands its jobs over."""
    with home_access.open_app() as app:
        app.settings()
        fault = services.settings_fault(app.home)
        if fault is not None:
            output.note(f"the service does not get the environment of this shell: {fault}")
        manager = _manager(kind)
        services.install(app.home, manager, _reporter(as_json))
        if manager.lingers() is False:
            linger = f"sudo loginctl enable-linger {getpass.getuser()}"
            output.note(f"the service starts at login and stops at logout; to start it at boot: {linger}")
        if as_json:
            _print_state(app, manager)


@service.command()
@_kind_option
@json_option
def uninstall(kind: str | None, as_json: bool) -> None:
    """Stop and remove the service. Running jobs are paused with a checkpoint."""
    manager = _manager(kind)
    services.uninstall(manager, _reporter(as_json))
    if as_json:
        with home_access.open_app() as app:
            _print_state(app, manager)


@service.command()
@_kind_option
@json_option
def status(kind: str | None, as_json: bool) -> None:
    """Show whether the service is installed, up to date, started at login, and running."""
    with home_access.open_app() as app:
        if as_json:
            _print_state(app, _manager(kind))
            return
        state = services.state(app.home, _manager(kind))
    for line in _lines(state, str(app.home.path)):
        click.echo(line)


@service.command(name="print")
@_kind_option
@json_option
def print_(kind: str | None, as_json: bool) -> None:
    """Print the unit file that `lq service install` writes."""
    with home_access.open_app() as app:
        manager = _manager(kind)
        text = manager.content(services.plan_for(app.home)).decode()
    if as_json:
        from orchestrator.results.machine import ServiceUnit

        output.print_json(ServiceUnit(kind=manager.kind, path=manager.file(), text=text), under="service")
        return
    click.echo(text, nl=False)
    if sys.stdout.isatty():
        output.note(f"lq service install writes it to {manager.file()}")


def _reporter(as_json: bool) -> Callable[[str], None]:
    """Return what prints the steps of an installation: nothing with --json."""
    return (lambda _: None) if as_json else click.echo


def _print_state(app: App, manager: Manager) -> None:
    output.print_json(services.state(app.home, manager), under="service")


def _manager(kind: str | None) -> Manager:
    return manager_of(kind or units.native_kind())


def _lines(state: services.ServiceState, home: str) -> Iterator[str]:
    if not state.installed:
        why = f"{state.kind} is not available: {state.missing}" if state.missing else "install it: lq service install"
        yield f"service: not installed ({why})"
        return
    yield f"service: installed, {state.path}, for {state.home or 'an unreadable home'}"
    if state.home != home:
        yield f"home: differs from {home}"
    if state.outdated:
        yield "file: outdated; update it: lq service install"
    if state.missing is not None:
        yield f"{state.kind}: not available ({state.missing})"
        return
    yield f"at login: {'starts' if state.enabled else 'does not start; repair it: lq service install'}"
    yield f"worker: pid {state.pid}" if state.pid is not None else "worker: the service runs none"
    if state.lingers is not None:
        remedy = f"does not run; sudo loginctl enable-linger {getpass.getuser()}"
        yield f"without a login: {'runs' if state.lingers else remedy}"
