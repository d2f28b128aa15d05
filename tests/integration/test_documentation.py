"""The documentation against the program: what can be typed is documented, and what is documented can be typed."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from configs.load import load_jobs
from configs.settings import load_settings
from jobs.spec import LqSpec
from orchestrator.cli.border import VERBS, lq

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
STOREYS = ("orchestrator", "workers", "configs", "jobs")

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([^)#]+)\)")


def commands() -> Iterator[tuple[str, click.Command]]:
    """Yield every verb with what one types for it."""
    yield from _below("lq", lq, click.Context(lq, info_name="lq"))


def _below(typed: str, command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    yield typed, command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from _below(f"{typed} {name}", below, click.Context(below, info_name=name, parent=context))


def blocks(*languages: str) -> list[str]:
    """Return the code blocks of README.md in these languages."""
    return [text for language, text in _BLOCK.findall(README) if language in languages]


def typed_in_readme() -> list[str]:
    """Return every `lq …` command line of README.md: in blocks, and in the first column of tables."""
    lines = [line.removeprefix("$ ") for block in blocks("sh", "console") for line in block.splitlines()]
    lines += re.findall(r"^\| `([^`]+)` \|", README, re.MULTILINE)
    return [line for line in lines if line.startswith("lq ")]


def parse(line: str) -> None:
    """Parse a command line as `lq` would, and run nothing."""
    command: click.Command = lq
    words = [_example(word) for word in shlex.split(line, comments=True)[1:]]
    context = command.make_context("lq", words)
    while isinstance(command, click.Group):
        words = list(itertools.dropwhile(lambda word: word.startswith("-"), words))  # a group has flags only
        if not words:
            return
        name, below, words = command.resolve_command(context, words)
        assert below is not None
        command, context = below, below.make_context(name, words, parent=context)


def _example(word: str) -> str:
    """Return something to type for a word that stands for something."""
    return {"ID": "1", "ID...": "1", "[ID...]": "1", "[FILE...]": "x.yaml", "S": "60", "VERB": "status"}.get(word, word)


# --- README.md ---


def test_readme_begins_with_the_two_commands() -> None:
    first = blocks("sh")[0].splitlines()
    assert [line.partition("#")[0].strip() for line in first] == ["make demo", "make test"]
    assert README.index("make demo") < 20


@pytest.mark.parametrize("typed", [typed for typed, _ in commands()])
def test_every_verb_stands_in_the_readme(typed: str) -> None:
    assert re.search(rf"`{typed}( [^`]*)?`", README), f"{typed} is not documented"


@pytest.mark.parametrize(("typed", "command"), list(commands()), ids=[typed for typed, _ in commands()])
def test_every_option_stands_beside_its_verb(typed: str, command: click.Command) -> None:
    options = {name for option in command.params for name in option.opts if name.startswith("--")} - {"--help"}
    said = "\n".join(line for line in README.splitlines() if re.search(rf"`{typed}\b", line))
    missing = {option for option in options - {"--json"} if not re.search(rf"`[^`]*{option}\b", said)}
    assert not missing, f"{typed}: {missing} not documented"
    if "--json" in options:
        assert re.search(rf"`{typed}( ID)? --json", README), f"{typed} --json is not documented"


@pytest.mark.parametrize("typed", [typed for typed, _ in commands()])
def test_every_verb_says_what_it_does(typed: str) -> None:
    command = dict(commands())[typed]
    assert command.help
    assert all(option.help for option in command.params if isinstance(option, click.Option))


def test_the_list_of_verbs_is_the_verbs() -> None:
    context = click.Context(lq)
    for verb, (_, _, words) in VERBS.items():
        command = lq.get_command(context, verb)
        assert command is not None
        assert command.name == verb
        assert words.endswith(".")


@pytest.mark.parametrize("line", sorted(set(typed_in_readme())))
def test_every_command_in_the_readme_can_be_typed(line: str) -> None:
    try:
        parse(line)
    except click.exceptions.Exit as ended:  # --version prints and ends
        assert ended.exit_code == 0


def test_a_command_that_cannot_be_typed_would_be_noticed() -> None:
    for line in ("lq submti x.yaml", "lq show", "lq status --al", "lq worker stopp", "lq wait 7-3"):
        with pytest.raises(click.UsageError):
            parse(line)
    assert len(typed_in_readme()) > 25


def test_the_job_files_of_the_readme_can_be_submitted(tmp_path: Path) -> None:
    first, own, *more = (block for block in blocks("yaml") if "\nlq:" in f"\n{block}")
    for text in (first, *(f"model: a/b\ndata: c/d\n{block}" for block in (own, *more))):
        path = tmp_path / "first.yaml"
        path.write_text(text)
        (tmp_path / "data").mkdir(exist_ok=True)
        load_jobs(path)
    assert set(yaml.safe_load(own)["lq"]) == set(LqSpec.model_fields), "every key of lq: is shown, and no other"


def test_the_settings_of_the_readme_are_settings(tmp_path: Path) -> None:
    (text,) = (block for block in blocks("yaml") if block.startswith("autostart"))
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    path.chmod(0o600)
    environ = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "x")
    settings = load_settings(path, environ=environ)
    assert [service.tags for service in settings.notify.services] == [("phone",), ("mail",)]


# --- the folders ---


def readmes() -> list[Path]:
    """Return the README of every storey and of the tests, and the one of the project."""
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / name / "README.md" for name in (*STOREYS, "tests"))]


@pytest.mark.parametrize("path", readmes(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    assert [link for link in _LINK.findall(path.read_text()) if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("folder", [*STOREYS, "tests"])
def test_every_file_named_in_a_folders_readme_exists(folder: str) -> None:
    named = re.findall(r"`([\w/.-]+(?:\.py|\.md|/))`", (ROOT / folder / "README.md").read_text())
    assert len(named) > 4
    places = (ROOT / folder, ROOT)
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


@pytest.mark.parametrize("folder", STOREYS)
def test_every_room_stands_in_its_storeys_readme(folder: str) -> None:
    text = (ROOT / folder / "README.md").read_text()
    files = {path.name for path in (ROOT / folder).glob("*.py") if not path.name.startswith("__")}
    folders = {f"{path.parent.name}/" for path in (ROOT / folder).glob("*/__init__.py")}
    assert {room for room in files | folders if f"`{room}`" not in text} == set()
    assert "**start here**" in text
