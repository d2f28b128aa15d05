"""config: the schema of a job file, and presets to begin one with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from jobs.model.errors import InvalidInput, NotAllowed
from orchestrator.cli import output
from orchestrator.cli.commands import completion
from orchestrator.cli.output import json_option

STDOUT = "-"


@click.group()
def config() -> None:
    """Say what a job file may say, and begin one."""


@config.command()
@click.option(
    "--of",
    "name",
    metavar="NAME",
    shell_complete=completion.schema_names,
    help="Of what a verb prints with --json, or of a file that lq writes.",
)
@click.option("--list", "listed", is_flag=True, help="Say what there is a schema of.")
def schema(name: str | None, listed: bool) -> None:
    """Print the JSON Schema of a job file, for editors that complete and check; or of what lq itself writes."""
    if listed:
        from orchestrator.results.catalogue import NAMES

        width = max(map(len, NAMES))
        for one, of in NAMES.items():
            click.echo(f"{one:<{width}}  {of}")
        return
    click.echo(json.dumps(_schema(name), indent=2, ensure_ascii=False))


def _schema(name: str | None) -> dict[str, Any]:
    if name is None:
        from configs.schema import job_schema

        return job_schema()
    from orchestrator.results import catalogue

    return catalogue.schema(name)


@config.command(name="presets")
@json_option
def presets_(as_json: bool) -> None:
    """List the presets, one line each."""
    from configs.preset_files import presets

    found = presets()
    if as_json:
        output.print_json({"presets": [{"name": one.name, "summary": one.summary} for one in found]})
        return
    width = max(len(one.name) for one in found)
    for one in found:
        click.echo(f"{one.name:<{width}}  {one.summary}")


@config.command()
@click.argument("preset", required=False, shell_complete=completion.preset_names)
@click.option(
    "--output",
    "target",
    metavar="FILE",
    default="lq.yaml",
    show_default=True,
    help="Write it there; - prints it.",
)
@click.option("--force", is_flag=True, help="Overwrite what lies there.")
@json_option
def init(preset: str | None, target: str, force: bool, as_json: bool) -> None:
    """Write a job file to begin with: a preset, or a small general one where none is named."""
    from configs import preset_files

    chosen = preset_files.preset(preset if preset is not None else preset_files.DEFAULT)
    if target == STDOUT:
        if as_json:
            raise click.UsageError("--output - prints the file itself; leave --json away, or name a file")
        click.echo(chosen.text, nl=False)
        return
    path = Path(target)
    _write(path, chosen.text, force=force)
    if as_json:
        output.print_json({"written": {"preset": chosen.name, "path": str(path)}})
        return
    click.echo(f"{path} written: {chosen.summary}")
    click.echo(f"name your model and data in it, then: lq submit {path}")


def _write(path: Path, text: str, *, force: bool) -> None:
    """Write a file of the user's.

    Raises:
        NotAllowed: something lies there, and nobody said that it may be overwritten.
        InvalidInput: it cannot be written.
    """
    from workers.files.atomic import write_atomically

    try:
        if force and not path.is_dir():
            write_atomically(path, text)
            return
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        if path.is_dir():
            raise InvalidInput(f"{path}: is a folder; name a file in it with --output") from error
        advice = "name another file with --output, or overwrite it with --force"
        raise NotAllowed(f"{path}: is there already; {advice}") from error
    except (OSError, ValueError) as error:
        why = (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
        raise InvalidInput(f"{path}: cannot be written ({why}); name another file with --output") from error
