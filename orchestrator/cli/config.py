"""config: the schema of a job file."""

from __future__ import annotations

import json

import click


@click.group()
def config() -> None:
    """Say what a job file may say."""


@config.command()
def schema() -> None:
    """Print the JSON Schema of a job file, for editors that complete and check."""
    from configs.schema import job_schema

    click.echo(json.dumps(job_schema(), indent=2, ensure_ascii=False))
