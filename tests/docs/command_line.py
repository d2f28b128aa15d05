"""docs/reference/command-line.md: every command with its arguments and options, from `--help`."""

from __future__ import annotations

import inspect
import itertools
import shlex
from collections.abc import Iterator

import click

from orchestrator.cli.verbs import EXAMPLES, lq
from tests.docs.pages import filled, row

PAGE = "docs/reference/command-line.md"

_OPERATORS = {"|", "||", "&&", ";", ">", ">>", "2>", "<"}
_EXAMPLES = {"ID": "1", "ID...": "1", "[ID...]": "1", "FILE...": "x.yaml", "[FILE...]": "x.yaml", "S": "60"} | {
    "COMMAND": "status",
    "[PRESET]": "small",
    "SHELL": "bash",
    "…": "1",
}
"""A valid argument for each placeholder of the pages."""


def page() -> str:
    """Return the text of the page."""
    return filled(PAGE, verbs=_reference)


def commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Yield every command with its full name (`lq worker stop`), `lq` first."""
    yield from _tree("lq", lq, click.Context(lq, info_name="lq", **lq.context_settings))


def _tree(
    name: str, command: click.Command, context: click.Context
) -> Iterator[tuple[str, click.Command, click.Context]]:
    yield name, command, context
    if isinstance(command, click.Group):
        for child_name in command.list_commands(context):
            child = command.get_command(context, child_name)
            assert child is not None
            yield from _tree(f"{name} {child_name}", child, click.Context(child, info_name=child_name, parent=context))


def parse(line: str) -> None:
    """Parse a command line as `lq` does, without running it.

    Raises:
        click.UsageError: the line is invalid.
        click.exceptions.Exit: the option prints something and exits, such as `--version`.
    """
    command: click.Command = lq
    words = [_EXAMPLES.get(word, word) for word in _first_command(shlex.split(line, comments=True)[1:])]
    context = command.make_context("lq", words)
    while isinstance(command, click.Group):
        words = list(itertools.dropwhile(lambda word: word.startswith("-"), words))  # groups have flags only
        if not words:
            return
        name, child, words = command.resolve_command(context, words)
        assert child is not None
        command, context = child, child.make_context(name, words, parent=context)


def _first_command(words: list[str]) -> list[str]:
    """Return the words up to the first pipe, redirection or separator."""
    return list(itertools.takewhile(lambda word: word not in _OPERATORS, words))


def _reference() -> str:
    entries = list(commands())
    return "\n\n".join([_overview(entries), *(_section(*entry) for entry in entries)])


def _overview(entries: list[tuple[str, click.Command, click.Context]]) -> str:
    rows = [
        row(f"[`{name}`](#{name.replace(' ', '-')})", command.get_short_help_str(120)) for name, command, _ in entries
    ]
    return "\n".join(["| command | effect |", "|---|---|", *rows[1:]])


def _section(name: str, command: click.Command, context: click.Context) -> str:
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    parts = [f"## {name}", f"```text\n{usage}\n```", _markdown(command.help or "")]
    options = [option for option in command.get_params(context) if isinstance(option, click.Option)]
    records = (option.get_help_record(context) for option in options if "--help" not in option.opts or name == "lq")
    rows = [row(f"`{names}`", text) for names, text in filter(None, records)]
    if rows:
        parts.append("\n".join(["| option | effect |", "|---|---|", *rows]))
    if examples := EXAMPLES.get(name.removeprefix("lq ")):
        parts.append("\n".join(["```bash", *examples, "```"]))
    return "\n\n".join(parts)


def _markdown(text: str) -> str:
    """Return the paragraphs of a help text as Markdown, without click's markers."""
    paragraphs = inspect.cleandoc(text).replace("\b\n", "").split("\n\n")
    return "\n\n".join(paragraph.replace("<", "&lt;").replace("*", "\\*") for paragraph in paragraphs)
