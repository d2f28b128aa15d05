"""The help of `lq`."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from orchestrator.cli.verbs import ALIASES, VERBS, lq
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
