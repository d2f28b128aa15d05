"""`lq report`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from orchestrator.cli import home_access
from orchestrator.cli.output import json_option, note
from orchestrator.cli.param_types import JobRef

FORMATS = {"md": "report.md", "html": "report.html", "json": "report.json"}


@click.command()
@home_access.job_id_argument
@click.option("--format", "report_format", type=click.Choice(list(FORMATS)), help="Format of the printed path (md).")
@click.option("--open", "opened", is_flag=True, help="Open the report, as HTML unless --format is given.")
@json_option
def report(job_id: JobRef, report_format: str | None, opened: bool, as_json: bool) -> None:
    """Write the report of a job and print its path, or with --json its content."""
    with home_access.open_app() as app:
        job = home_access.find_job(app, job_id)
        from orchestrator.report.make import make

        made = make(app.store, job.id, now=time.time(), home=_home_for_commands(app.home.path))
    path = made.with_name(FORMATS[report_format or ("html" if opened else "md")])
    click.echo(made.with_name("report.json").read_text() if as_json else str(path), nl=not as_json)
    if opened and click.launch(str(path)) != 0:
        note(f"no program opens {path}")


def _home_for_commands(home: Path) -> str | None:
    """Return the home for the commands in the report; None if it is the default home."""
    from orchestrator.core.paths import Home

    return None if home == Home.of({}).path else str(home)
