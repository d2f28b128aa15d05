"""The documentation against the program: what can be typed is documented, and what is documented can be typed.

What is generated is held by tests/docs/test_generated.py, what is run by tests/docs/test_pages_run.py.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import click
import pytest
import yaml

from configs.load import load_jobs
from configs.settings import load_settings
from jobs.model.spec import LqSpec
from orchestrator.cli.verbs import VERBS, lq
from tests.docs.command_line import commands, parse
from tests.docs.pages import DOCS, ROOT, anchors, blocks, command_lines, links, pages
from tests.harness import Workshop

README = ROOT / "README.md"
STOREYS = ("orchestrator", "workers", "configs", "jobs")
TYPED = {typed: command for typed, command, _ in commands()}


def _writes_json(command: click.Command) -> bool:
    return any("--json" in option.opts for option in command.params)


def name_of(page: Path) -> str:
    """Return what a page is called in the test's name."""
    return str(page.relative_to(ROOT))


# --- README.md ---


def test_readme_begins_with_the_two_commands() -> None:
    first = blocks(README, "sh")[0].splitlines()
    assert [line.partition("#")[0].strip() for line in first] == ["make demo", "make test"]
    assert README.read_text().index("make demo") < 20


@pytest.mark.parametrize("typed", TYPED)
def test_every_verb_stands_in_the_readme(typed: str) -> None:
    assert re.search(rf"`{typed}( [^`]*)?`", README.read_text()), f"{typed} is not documented"


@pytest.mark.parametrize("typed", [typed for typed, command in TYPED.items() if not isinstance(command, click.Group)])
def test_every_verb_has_its_line_in_the_readmes_list(typed: str) -> None:
    assert re.search(rf"^\| `{typed}( [^`]*)?` \| \S", README.read_text(), re.MULTILINE), f"{typed} is not in the list"


@pytest.mark.parametrize("typed", TYPED)
def test_every_verb_says_what_it_does(typed: str) -> None:
    command = TYPED[typed]
    assert command.help
    assert all(option.help for option in command.params if isinstance(option, click.Option))


def test_the_list_of_verbs_is_the_verbs() -> None:
    context = click.Context(lq)
    for verb, (_, _, words) in VERBS.items():
        command = lq.get_command(context, verb)
        assert command is not None
        assert command.name == verb
        assert words.endswith(".")


# --- every page ---


@pytest.mark.parametrize(
    ("page", "line"),
    [(page, line) for page in pages() for line in sorted(set(command_lines(page)))],
    ids=lambda value: name_of(value) if isinstance(value, Path) else value,
)
def test_every_command_on_a_page_can_be_typed(page: Path, line: str) -> None:
    try:
        parse(line)
    except click.exceptions.Exit as ended:  # --version prints and ends
        assert ended.exit_code == 0


def test_a_command_that_cannot_be_typed_would_be_noticed() -> None:
    for line in ("lq submti x.yaml", "lq show", "lq status --al", "lq worker stopp", "lq wait 7-3"):
        with pytest.raises(click.UsageError):
            parse(line)
    assert len(command_lines(README)) > 25


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_every_shell_block_is_shell(page: Path) -> None:
    for block in blocks(page, "sh"):
        done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block}\n{done.stderr}"


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_the_job_files_on_a_page_can_be_submitted(page: Path, tmp_path: Path, workshop: Workshop) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "model").symlink_to(workshop.model)
    for block in blocks(page, "yaml"):
        if not re.search(r"^(model|lq):", block, re.MULTILINE):
            continue
        path = tmp_path / "first.yaml"
        usual = {"model": "a/b", "data": "c/d"}
        given = yaml.safe_load(block)
        path.write_text("".join(f"{key}: {value}\n" for key, value in usual.items() if key not in given) + block)
        load_jobs(path)


def test_every_key_of_lq_is_shown_with_its_comment_and_no_other() -> None:
    shown = [block for block in blocks(DOCS / "reference" / "configuration.md", "yaml") if block.startswith("lq:")]
    assert set(yaml.safe_load(shown[0])["lq"]) == set(LqSpec.model_fields)
    uncommented = [line for line in shown[0].splitlines()[1:] if re.match(r"  \w", line) and "#" not in line]
    assert [line.split(":")[0].strip() for line in uncommented] == ["power", "memory", "notify"], (
        "their parts are commented"
    )


@pytest.mark.parametrize("page", [README, DOCS / "how-to" / "notifications.md"], ids=name_of)
def test_the_settings_on_a_page_are_settings(page: Path, tmp_path: Path) -> None:
    (text,) = (block for block in blocks(page, "yaml") if "\n  services:" in block)
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    path.chmod(0o600)
    environ = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "x")
    tags = [service.tags for service in load_settings(path, environ=environ).notify.services]
    assert tags == [("phone",), ("mail",)][: len(tags)]
    assert tags


# --- the folders ---


def linking() -> list[Path]:
    """Return every page, and the README of every storey and of the tests."""
    return [*pages(), ROOT / "CHANGELOG.md", *(ROOT / name / "README.md" for name in (*STOREYS, "tests"))]


@pytest.mark.parametrize("page", linking(), ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_can_be_found_from_the_index() -> None:
    index = DOCS / "README.md"
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in links(index)}
    assert {name_of(page) for page in pages() if page != index and page.resolve() not in linked} == set()


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
