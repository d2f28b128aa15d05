"""report."""

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
@click.option("--format", "form", type=click.Choice(list(FORMATS)), help="Which file to name: md where not given.")
@click.option("--open", "shown", is_flag=True, help="Show it, as HTML where no format is given.")
@json_option
def report(job_id: JobRef, form: str | None, shown: bool, as_json: bool) -> None:
    """Write the report of job ID anew, from what is known now, and say where it is; --json prints it."""
    with home_access.opened() as app:
        job = home_access.one_job(app, job_id)
        from orchestrator.report.make import make

        made = make(app.store, job.id, now=time.time(), home=_named(app.home.path))
    path = made.with_name(FORMATS[form or ("html" if shown else "md")])
    click.echo(made.with_name("report.json").read_text() if as_json else str(path), nl=not as_json)
    if shown and click.launch(str(path)) != 0:
        note(f"nothing on this machine opens it; look at {path}")


def _named(home: Path) -> str | None:
    """Return the home as the report's commands must name it; None where `lq` finds it by itself."""
    from orchestrator.core.paths import Home

    return None if home == Home.of({}).path else str(home)
