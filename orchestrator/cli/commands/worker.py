"""worker: in the foreground, detached, stop, status."""

from __future__ import annotations

import sys

import click

from jobs.model.errors import NoWorker
from orchestrator.cli import home_access, output
from orchestrator.cli.output import json_option
from orchestrator.formatting import text as fmt
from orchestrator.worker import control


@click.group(invoke_without_command=True)
@click.option("--detach", is_flag=True, help="Start it and return; it outlives this terminal.")
@click.option("--standby", is_flag=True, help="Where a worker runs already, wait, and take its place when it goes.")
@json_option
@click.pass_context
def worker(context: click.Context, detach: bool, standby: bool, as_json: bool) -> None:
    """Look after the jobs: in the foreground until Ctrl-C, or detached."""
    if as_json and (context.invoked_subcommand is not None or not detach):
        raise click.UsageError("--json goes with --detach, or behind stop and status")
    if context.invoked_subcommand is not None:
        return
    with home_access.opened() as app:
        present = control.running(app.home) if detach else None
        if present is not None:
            _tell(int(present["pid"]), started=False, as_json=as_json)
            return
        home_access.require_bell(app)
        if detach:
            from orchestrator.service.install import start_worker

            _tell(start_worker(app.home), started=True, as_json=as_json)
            return
    from orchestrator.worker.main import run

    run(app.home, foreground=sys.stderr.isatty(), standby=standby, say=click.echo)


def _tell(pid: int, *, started: bool, as_json: bool) -> None:
    if as_json:
        output.print_json({"worker": {"alive": True, "pid": pid, "started": started}})
    else:
        click.echo(f"worker started (pid {pid})" if started else f"a worker runs already (pid {pid})")


@worker.command()
@click.option("--leave-running", is_flag=True, help="Leave the trainers running; the next worker adopts them.")
@click.option(
    "--timeout",
    "timeout_s",
    metavar="S",
    type=home_access.SECONDS,
    default=900.0,
    show_default=True,
    help="Wait at most so long.",
)
@json_option
def stop(leave_running: bool, timeout_s: float, as_json: bool) -> None:
    """Send the worker home. Running jobs write a checkpoint and pause; they go on when a worker starts."""
    with home_access.opened() as app:
        who = control.stop(app.home, leave_running=leave_running, timeout_s=timeout_s)
        if as_json:
            output.print_json({"stopped": {"pid": who.pid, "left_running": leave_running}})
            return
        jobs = "its trainers go on" if leave_running else "its jobs are paused and go on when a worker starts"
        click.echo(f"worker {who.pid} stopped; {jobs}")


@worker.command()
@json_option
def status(as_json: bool) -> None:
    """Say whether a worker runs; exit code 4 where none does."""
    with home_access.opened() as app:
        present = control.running(app.home)
        if as_json:
            facts = {"alive": present is not None, "pid": None, "started_at": None}
            if present is not None:
                facts |= {"pid": present["pid"], "started_at": present.get("started_at")}
            output.print_json({"worker": facts})
        if present is None:
            raise NoWorker(f"no worker runs for {app.home.path}; start one: lq worker --detach")
        if not as_json:
            click.echo(f"worker runs since {fmt.clock(present.get('started_at'))}, pid {present['pid']}")
