"""The generated pages are up to date and complete."""

from __future__ import annotations

import re

import click
import pytest

from configs.settings import Settings
from jobs.model.spec import JobSpec
from jobs.model.states import LEGAL
from tests.docs import GENERATORS, command_line, configuration, states
from tests.docs.pages import ROOT


@pytest.mark.parametrize("path", GENERATORS)
def test_generated_page_is_up_to_date(path: str) -> None:
    assert (ROOT / path).read_text() == GENERATORS[path](), f"{path} is not up to date; run: make docs"


@pytest.mark.parametrize(("name", "command"), [(name, command) for name, command, _ in command_line.commands()])
def test_every_option_is_documented(name: str, command: click.Command) -> None:
    section = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", _text(command_line.PAGE), re.MULTILINE | re.DOTALL)
    assert section is not None, f"{name} is not documented"
    options = {opt for option in command.params for opt in option.opts if opt.startswith("-")} - {"--help"}
    assert {opt for opt in options if not re.search(rf"`[^`]*{opt}\b[^`]*`", section[1])} == set()


@pytest.mark.parametrize("key", [*configuration.keys(JobSpec), *configuration.keys(Settings)])
def test_every_key_is_documented(key: str) -> None:
    rows = [line for line in _text(configuration.PAGE).splitlines() if line.startswith(f"| `{key}` |")]
    assert rows, f"{key} is not documented"
    _, _, type_text, _, meaning, _ = re.split(r"(?<!\\)\|", rows[0])
    assert type_text.strip()
    assert meaning.strip(), f"{key} has no description in its model"


def test_every_state_change_is_drawn() -> None:
    arrows = {(arrow.start, arrow.end) for arrow in states.arrows()}
    assert arrows == {(old.value, new.value) for old, after in LEGAL.items() for new in after}
    assert states.page().count('marker-end="url(#head)"') == len(arrows)


def _text(path: str) -> str:
    return (ROOT / path).read_text()
