"""report."""

from __future__ import annotations

import time
from pathlib import Path

import click

from orchestrator.cli import reach
from orchestrator.cli.output import json_option


@click.command()
@reach.job_id_argument
@json_option
def report(job_id: int, as_json: bool) -> None:
    """Write the report of job ID anew, from what is known now, and say where it is; --json prints it."""
    with reach.opened() as app:
        job = reach.one_job(app, job_id)
        from orchestrator.report.make import make

        path = make(app.store, job.id, now=time.time(), home=_named(app.home.path))
        click.echo(path.with_name("report.json").read_text() if as_json else str(path), nl=not as_json)


def _named(home: Path) -> str | None:
    """Return the home as the report's commands must name it; None where `lq` finds it by itself."""
    from orchestrator.home import Home

    return None if home == Home.of({}).path else str(home)
