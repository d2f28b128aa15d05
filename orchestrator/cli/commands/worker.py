"""`lq worker`, `lq worker stop` and `lq worker status`."""

from __future__ import annotations

import sys

import click

from jobs.model.errors import NoWorker
from orchestrator.cli import home_access, output
from orchestrator.cli.output import json_option
from orchestrator.cli.param_types import SECONDS
from orchestrator.formatting import text as fmt
from orchestrator.worker import control


@click.group(invoke_without_command=True)
@click.option("--detach", is_flag=True, help="Start the worker in the background and return.")
@click.option("--standby", is_flag=True, help="If a worker already runs, wait until it stops, then take over.")
@json_option
@click.pass_context
def worker(context: click.Context, detach: bool, standby: bool, as_json: bool) -> None:
    """Run the worker, which runs the jobs, in the foreground until Ctrl-C or in the background."""
    if as_json and (context.invoked_subcommand is not None or not detach):
        raise click.UsageError("--json needs --detach, or goes after stop or status")
    if context.invoked_subcommand is not None:
        return
    with home_access.open_app() as app:
        present = control.running(app.home) if detach else None
        if present is not None:
            _print_started(int(present["pid"]), started=False, as_json=as_json)
            return
        home_access.require_wakeup(app)
        if detach:
            from orchestrator.service.install import start_worker

            _print_started(start_worker(app.home), started=True, as_json=as_json)
            return
    from orchestrator.worker.main import run

    run(app.home, foreground=sys.stderr.isatty(), standby=standby, say=click.echo)


def _print_started(pid: int, *, started: bool, as_json: bool) -> None:
    if as_json:
        from orchestrator.results.machine import StartedWorker

        output.print_json(StartedWorker(alive=True, pid=pid, started=started), under="worker")
    else:
        click.echo(f"worker started (pid {pid})" if started else f"a worker already runs (pid {pid})")


@worker.command()
@click.option("--leave-running", is_flag=True, help="Keep the trainers running; the next worker adopts them.")
@click.option(
    "--timeout",
    "timeout_s",
    metavar="S",
    type=SECONDS,
    default=900.0,
    show_default=True,
    help="Wait at most this many seconds.",
)
@json_option
def stop(leave_running: bool, timeout_s: float, as_json: bool) -> None:
    """Stop the worker. Running jobs are paused with a checkpoint and resume when a worker starts."""
    with home_access.open_app() as app:
        stopped = control.stop(app.home, leave_running=leave_running, timeout_s=timeout_s)
    if as_json:
        from orchestrator.results.machine import StoppedWorker

        output.print_json(StoppedWorker(pid=stopped.pid, left_running=leave_running), under="stopped")
        return
    jobs = "its trainers keep running" if leave_running else "its jobs are paused and resume when a worker starts"
    click.echo(f"worker {stopped.pid} stopped; {jobs}")


@worker.command()
@json_option
def status(as_json: bool) -> None:
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
        raise NoWorker(f"no worker runs for {app.home.path}; start one: lq worker --detach")
    if not as_json:
        click.echo(f"worker runs since {fmt.clock(present.get('started_at'))}, pid {present['pid']}")
