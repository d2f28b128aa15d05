"""The help of `lq`."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from orchestrator.cli.verbs import ALIASES, EXAMPLES, VERBS, lq
from tests.docs.command_line import commands, parse
from tests.golden import assert_golden
from tests.harness import InProcess

GOLDEN = Path(__file__).parent / "golden"


def test_help_lists_every_verb(here: InProcess) -> None:
    assert_golden(here("--help").out, GOLDEN / "help.txt")


@pytest.mark.parametrize("verb", VERBS)
def test_verb_and_list_agree(verb: str) -> None:
    command = lq.get_command(click.Context(lq), verb)
    assert command is not None
    assert command.name == verb
    assert command.get_short_help_str(200).split()[0] == VERBS[verb][1].split()[0], "both start with the same verb"


def test_aliases_name_existing_verbs() -> None:
    assert {target.split()[0] for target in ALIASES.values()} <= VERBS.keys()
    assert ALIASES.keys().isdisjoint(VERBS)


def test_every_verb_has_valid_examples() -> None:
    assert EXAMPLES.keys() == VERBS.keys() - {"completion"}, "its help shows the lines for each shell"
    for verb, examples in EXAMPLES.items():
        for line in examples:
            parse(line[line.index("lq ") :])
            assert line[line.index("lq ") :].split()[1] == verb


@pytest.mark.parametrize("words", [name.split()[1:] for name, _, _ in commands()], ids=" ".join)
def test_help_of_a_verb_is_its_help(here: InProcess, words: list[str]) -> None:
    assert here("help", *words).out == here(*words, "--help").out


def test_help_names_an_unknown_verb(here: InProcess) -> None:
    for words in (("sumbit",), ("worker", "stpo"), ("show", "x")):
        answer = here("help", *words, expect=2)
        assert (answer.out, answer.err.count("\n")) == ("", 1)
        assert words[-1] in answer.err


def test_version_has_a_short_option(here: InProcess) -> None:
    assert here("-V").out == here("--version").out != ""
