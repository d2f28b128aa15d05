"""`lq worker` and `lq service`."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Iterator

import click

from jobs.model.errors import NoWorker
from orchestrator.cli import home_access, output
from orchestrator.cli.args import seconds_option
from orchestrator.cli.output import json_option
from orchestrator.core.app import App
from orchestrator.formatting import text as fmt
from orchestrator.service import install as services
from orchestrator.service import units
from orchestrator.service.managers import Manager, manager_of
from orchestrator.worker import control


@click.group(invoke_without_command=True)
@click.option("--detach", is_flag=True, help="Start the worker in the background and return.")
@click.option("--standby", is_flag=True, help="If a worker already runs, wait until it stops, then take over.")
@json_option
@click.pass_context
def worker(context: click.Context, detach: bool, standby: bool, as_json: bool) -> None:
    """Run the worker, which runs the jobs, in the foreground until Ctrl-C or in the background."""
    if as_json and (context.invoked_subcommand is not None or not detach):
        raise click.UsageError("--json needs --detach, or goes after start, stop, restart or status")
    if context.invoked_subcommand is not None:
        return
    with home_access.open_app() as app:
        if detach:
            _start(app, as_json=as_json)
            return
        home_access.require_wakeup(app)
    from orchestrator.worker.main import run

    run(app.home, foreground=sys.stderr.isatty(), standby=standby, say=click.echo)


def _start(app: App, *, as_json: bool) -> None:
    """Start a worker in the background, by the service if that serves this home, unless one runs."""
    present = control.running(app.home)
    if present is None:
        home_access.require_wakeup(app)
        pid = services.start_worker(app.home)
    else:
        pid = int(present["pid"])
    if as_json:
        from orchestrator.results.machine import StartedWorker

        output.print_json(StartedWorker(alive=True, pid=pid, started=present is None), under="worker")
    else:
        click.echo(f"worker started (pid {pid})" if present is None else f"a worker already runs (pid {pid})")


@worker.command()
@json_option
def start(as_json: bool) -> None:
    """Start the worker in the background, by the service if it is installed."""
    with home_access.open_app() as app:
        _start(app, as_json=as_json)


_leave_option = click.option(
    "--leave-running", is_flag=True, help="Keep the trainers running; the next worker adopts them."
)
_timeout_option = seconds_option("--timeout", "timeout_s", "Wait at most this many seconds", 900.0)


@worker.command()
@_leave_option
@_timeout_option
@json_option
def restart(leave_running: bool, timeout_s: float, as_json: bool) -> None:
    """Stop the worker if one runs, and start one. Running jobs write a checkpoint and resume exactly."""
    with home_access.open_app() as app:
        home_access.require_wakeup(app)  # a fault of the settings is found before anything is stopped
        if control.running(app.home) is not None:
            stopped = control.stop(app.home, leave_running=leave_running, timeout_s=timeout_s)
            if not as_json:
                click.echo(f"worker {stopped.pid} stopped")
        _start(app, as_json=as_json)


@worker.command()
@_leave_option
@_timeout_option
@json_option
def stop(leave_running: bool, timeout_s: float, as_json: bool) -> None:
    """Stop the worker. Running jobs are paused with a checkpoint and resume when a worker starts."""
    with home_access.open_app() as app:
        is_training = app.home.store.exists() and app.store.jobs.running()
        stopped = control.stop(app.home, leave_running=leave_running, timeout_s=timeout_s)
    if as_json:
        from orchestrator.results.machine import StoppedWorker

        output.print_json(StoppedWorker(pid=stopped.pid, left_running=leave_running), under="stopped")
        return
    jobs = "; its trainers keep running" if leave_running else "; its jobs are paused and resume when a worker starts"
    click.echo(f"worker {stopped.pid} stopped{jobs if is_training else ''}")


@worker.command(name="status")
@json_option
def worker_status(as_json: bool) -> None:
    """Show whether a worker runs.

    Exit code: 4 if no worker runs.
    """
    with home_access.open_app() as app:
        present = control.running(app.home)
    if as_json:
        from orchestrator.results.jobs import WorkerState

        facts = present or {}
        state = WorkerState(alive=present is not None, pid=facts.get("pid"), started_at=facts.get("started_at"))
        output.print_json(state, under="worker")
    if present is None:
        raise NoWorker(f"no worker runs for {app.home.path}; start one: lq worker start")
    if not as_json:
        click.echo(f"worker runs since {fmt.clock(present.get('started_at'))}, pid {present['pid']}")


def _as_manager(ctx: click.Context, param: click.Parameter, kind: str | None) -> Manager:
    return manager_of(kind or units.native_kind())


_kind_option = click.option(
    "--kind",
    "manager",
    type=click.Choice(["launchd", "systemd"]),
    callback=_as_manager,
    help="Use this service manager instead of the native one.",
)


@click.group()
def service() -> None:
    """Install the worker as a service that starts at login or boot and restarts after a crash."""


@service.command()
@_kind_option
@json_option
def install(manager: Manager, as_json: bool) -> None:
    """Install and start the service of this home. A running worker hands its jobs over."""
    with home_access.open_app() as app:
        app.settings()
        if (fault := services.settings_fault(app.home)) is not None:
            output.note(f"the service does not get the environment of this shell: {fault}")
        services.install(app.home, manager, _reporter(as_json))
        if manager.lingers() is False:
            linger = f"sudo loginctl enable-linger {getpass.getuser()}"
            output.note(f"the service starts at login and stops at logout; to start it at boot: {linger}")
        if as_json:
            _print_state(app, manager)


@service.command()
@_kind_option
@json_option
def uninstall(manager: Manager, as_json: bool) -> None:
    """Stop and remove the service. Running jobs are paused with a checkpoint."""
    services.uninstall(manager, _reporter(as_json))
    if as_json:
        with home_access.open_app() as app:
            _print_state(app, manager)


@service.command(name="status")
@_kind_option
@json_option
def service_status(manager: Manager, as_json: bool) -> None:
    """Show whether the service is installed, up to date, started at login, and running."""
    with home_access.open_app() as app:
        if as_json:
            _print_state(app, manager)
            return
        for line in _lines(services.state(app.home, manager), str(app.home.path)):
            click.echo(line)


@service.command(name="print")
@_kind_option
@json_option
def print_(manager: Manager, as_json: bool) -> None:
    """Print the unit file that `lq service install` writes."""
    with home_access.open_app() as app:
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
