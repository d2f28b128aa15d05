"""`lq config` and `lq completion`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from jobs.model.errors import InvalidInput, NotAllowed
from orchestrator.cli import output, shell_completion
from orchestrator.cli.output import json_option
from orchestrator.cli.verbs import COMPLETE_VARIABLE

STDOUT = "-"


@click.group()
def config() -> None:
    """Print the schema of job files, list presets, or write a job file."""


@config.command()
@click.option(
    "--of",
    "name",
    metavar="NAME",
    shell_complete=shell_completion.schema_names,
    help="Print the schema of the JSON that a verb prints, or of a file that lq writes.",
)
@click.option("--list", "listed", is_flag=True, help="List the names of the schemas.")
def schema(name: str | None, listed: bool) -> None:
    """Print the JSON Schema of a job file, for editors and scripts."""
    from orchestrator.results import catalogue

    if listed:
        _print_table(catalogue.NAMES)
        return
    click.echo(json.dumps(catalogue.schema(name or catalogue.JOB), indent=2, ensure_ascii=False))


@config.command(name="presets")
@json_option
def presets_(as_json: bool) -> None:
    """List the presets, one per line."""
    from configs.preset_files import presets

    available = presets()
    if as_json:
        from orchestrator.results.build import from_attributes
        from orchestrator.results.machine import PresetSummary

        output.print_json([from_attributes(PresetSummary, preset) for preset in available], under="presets")
        return
    _print_table({preset.name: preset.summary for preset in available})


def _print_table(rows: Mapping[str, str]) -> None:
    for name, text in rows.items():
        click.echo(f"{name:<{max(map(len, rows))}}  {text}")


@config.command()
@click.argument("preset", required=False, shell_complete=shell_completion.preset_names)
@click.option(
    "--output",
    "target",
    metavar="FILE",
    default="lq.yaml",
    show_default=True,
    help="Write the job file to FILE; - prints it.",
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@json_option
def init(preset: str | None, target: str, force: bool, as_json: bool) -> None:
    """Write a job file from a preset, or a small general one."""
    from configs import preset_files

    chosen = preset_files.preset(preset if preset is not None else preset_files.DEFAULT)
    if target == STDOUT:
        if as_json:
            raise click.UsageError("--output - and --json cannot be used together")
        click.echo(chosen.text, nl=False)
        return
    path = Path(target)
    _write(path, chosen.text, force=force)
    if as_json:
        from orchestrator.results.machine import WrittenPreset

        output.print_json(WrittenPreset(preset=chosen.name, path=path), under="written")
        return
    click.echo(f"{path} written: {chosen.summary}")
    click.echo(f"set your model and data in it, then: lq submit {path}")


def _write(path: Path, text: str, *, force: bool) -> None:
    """Write the job file, over an existing one only with --force."""
    from workers.files.atomic import write_atomically

    another = "name another file with --output"
    if path.is_dir():
        raise InvalidInput(f"{path}: is a folder; name a file in it with --output")
    try:
        if force:
            write_atomically(path, text)
            return
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise NotAllowed(f"{path}: already exists; {another}, or use --force") from error
    except (OSError, ValueError) as error:
        why = error.strerror.lower() if isinstance(error, OSError) and error.strerror else str(error)
        raise InvalidInput(f"{path}: cannot be written ({why}); {another}") from error


INSTALLATION = """\b
bash  eval "$(lq completion bash)"    in ~/.bashrc (needs bash 4.4)
zsh   eval "$(lq completion zsh)"     in ~/.zshrc, below compinit
fish  lq completion fish | source     in ~/.config/fish/config.fish
"""


@click.command(epilog=INSTALLATION)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the shell completion script."""
    completion_class = get_completion_class(shell)
    assert completion_class is not None
    click.echo(completion_class(click.Command("lq"), {}, "lq", COMPLETE_VARIABLE).source(), nl=False)
