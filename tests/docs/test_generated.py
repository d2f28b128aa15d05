"""The generated pages are what the program says now, and nothing that can be typed or written is left out of them."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from configs.settings import Settings
from jobs.model.spec import JobSpec
from jobs.model.states import LEGAL
from tests.docs import GENERATORS, command_line, configuration, states
from tests.docs.pages import ROOT


@pytest.mark.parametrize("path", GENERATORS)
def test_a_generated_page_is_what_the_program_says(path: str) -> None:
    assert (ROOT / path).read_text() == GENERATORS[path](), f"{path} is not up to date; run: make docs"


@pytest.mark.parametrize(
    ("typed", "command"), [(typed, command) for typed, command, _ in command_line.commands()], ids=str
)
def test_every_option_of_every_verb_is_documented(typed: str, command: click.Command) -> None:
    section = re.search(rf"^## {typed}\n(.*?)(?=^## |\Z)", _text(command_line.PAGE), re.MULTILINE | re.DOTALL)
    assert section is not None, f"{typed} is not documented"
    options = {name for option in command.params for name in option.opts if name.startswith("-")} - {"--help"}
    assert {name for name in options if not re.search(rf"`[^`]*{name}\b[^`]*`", section[1])} == set()


@pytest.mark.parametrize("key", [*configuration.keys(JobSpec), *configuration.keys(Settings)])
def test_every_key_is_documented_with_what_it_takes_and_means(key: str) -> None:
    rows = [line for line in _text(configuration.PAGE).splitlines() if line.startswith(f"| `{key}` |")]
    assert rows, f"{key} is not documented"
    _, _, takes, _, meaning, _ = re.split(r"(?<!\\)\|", rows[0])
    assert takes.strip()
    assert meaning.strip(), f"{key} has no description in its model"


def test_every_change_of_state_is_drawn() -> None:
    drawn = set(re.findall(r"^ {4}(\w+) --> (\w+)$", states.diagram(), re.MULTILINE))
    assert drawn == {(old.value, new.value) for old, after in LEGAL.items() for new in after}


def _text(path: str) -> str:
    return Path(ROOT / path).read_text()
