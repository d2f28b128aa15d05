"""docs/reference/command-line.md: every verb with its arguments and options, from what `--help` says."""

from __future__ import annotations

import inspect
import itertools
import shlex
from collections.abc import Iterator

import click

from orchestrator.cli.verbs import lq
from tests.docs.pages import filled, row

PAGE = "docs/reference/command-line.md"


def page() -> str:
    """Return the text of the page."""
    return filled(PAGE, verbs=_verbs)


def commands() -> Iterator[tuple[str, click.Command, click.Context]]:
    """Yield every verb with what one types for it, `lq` itself first."""
    yield from _below("lq", lq, click.Context(lq, info_name="lq", **lq.context_settings))


def _below(
    typed: str, command: click.Command, context: click.Context
) -> Iterator[tuple[str, click.Command, click.Context]]:
    yield typed, command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _below(f"{typed} {name}", below, click.Context(below, info_name=name, parent=context))


def parse(line: str) -> None:
    """Parse a command line as `lq` would, and run nothing.

    Raises:
        click.UsageError: it cannot be typed.
        click.exceptions.Exit: it prints something and ends, such as `--version`.
    """
    command: click.Command = lq
    words = [_example(word) for word in _until_the_shell_goes_on(shlex.split(line, comments=True)[1:])]
    context = command.make_context("lq", words)
    while isinstance(command, click.Group):
        words = list(itertools.dropwhile(lambda word: word.startswith("-"), words))  # a group has flags only
        if not words:
            return
        name, below, words = command.resolve_command(context, words)
        assert below is not None
        command, context = below, below.make_context(name, words, parent=context)


def _until_the_shell_goes_on(words: list[str]) -> list[str]:
    """Cut a command line where a pipe, a redirection or another command begins."""
    return list(itertools.takewhile(lambda word: word not in {"|", "||", "&&", ";", ">", ">>", "2>"}, words))


def _example(word: str) -> str:
    """Return something to type for a word that stands for something."""
    stands_for = {"ID": "1", "ID...": "1", "[ID...]": "1", "FILE...": "x.yaml", "[FILE...]": "x.yaml", "S": "60"}
    return (stands_for | {"VERB": "status", "[PRESET]": "small", "SHELL": "bash", "…": "1"}).get(word, word)


def _verbs() -> str:
    told = list(commands())
    return "\n\n".join([*_head(told), *(_section(*one) for one in told)])


def _head(told: list[tuple[str, click.Command, click.Context]]) -> list[str]:
    rows = [
        row(f"[`{typed}`](#{typed.replace(' ', '-')})", command.get_short_help_str(120)) for typed, command, _ in told
    ]
    return ["\n".join(["| command | effect |", "|---|---|", *rows[1:]])]


def _section(typed: str, command: click.Command, context: click.Context) -> str:
    usage = " ".join([typed, *command.collect_usage_pieces(context)])
    parts = [f"## {typed}", f"```text\n{usage}\n```", _prose(command.help or "")]
    options = [one for one in command.get_params(context) if isinstance(one, click.Option)]
    told = (option.get_help_record(context) for option in options if "--help" not in option.opts or typed == "lq")
    rows = [row(f"`{names}`", words) for names, words in filter(None, told)]
    if rows:
        parts.append("\n".join(["| option | effect |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def _prose(text: str) -> str:
    """Return a help text as Markdown: its paragraphs, without the marks that are click's."""
    paragraphs = inspect.cleandoc(text).replace("\b\n", "").split("\n\n")
    return "\n\n".join(paragraph.replace("<", "&lt;").replace("*", "\\*") for paragraph in paragraphs)
