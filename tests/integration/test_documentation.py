"""The documentation matches the program: every command is documented, and every documented command exists.

tests/docs/test_generated.py checks the generated pages, tests/docs/test_pages_run.py runs the commands of two pages.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from configs.load import load_jobs
from configs.settings import load_settings
from jobs.model.spec import LqSpec
from orchestrator.cli.verbs import VERBS, lq
from tests.docs.command_line import PAGE, commands, parse
from tests.docs.pages import DOCS, ROOT, anchors, blocks, command_lines, links, pages
from tests.harness import Workshop

README = ROOT / "README.md"
COMMAND_LINE = ROOT / PAGE
LAYERS = ("orchestrator", "workers", "configs", "jobs")
COMMANDS = {name: command for name, command, _ in commands()}
LEAVES = [name for name, command in COMMANDS.items() if not isinstance(command, click.Group)]
GENERATED = (PAGE, "docs/reference/json.md")


def name_of(page: Path) -> str:
    """Return the path of a page for the id of a test."""
    return str(page.relative_to(ROOT))


# --- README.md and the list of commands ---


def test_readme_begins_with_two_commands() -> None:
    lines = blocks(README, "sh")[0].splitlines()
    assert [line.partition("#")[0].strip() for line in lines] == ["make demo", "make test"]
    assert README.read_text().index("make demo") < 20


def test_readme_has_at_most_1100_words() -> None:
    assert len(README.read_text().split()) <= 1100


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "lq"])
def test_every_command_is_listed(name: str) -> None:
    assert re.search(rf"^\| \[`{name}`\]\(#{name.replace(' ', '-')}\) \| \S", COMMAND_LINE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", LEAVES)
def test_every_command_is_in_a_guide(name: str) -> None:
    guides = [page for page in pages() if name_of(page) not in GENERATED]
    assert any(re.search(rf"(?<![\w-]){name}(?![\w-])", page.read_text()) for page in guides)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    assert all(option.help for option in command.params if isinstance(option, click.Option))


def test_command_table_matches_commands() -> None:
    context = click.Context(lq)
    for name, (_, summary) in VERBS.items():
        command = lq.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert summary.endswith(".")


# --- every page ---


@pytest.mark.parametrize(
    ("page", "line"),
    [(page, line) for page in pages() for line in sorted(set(command_lines(page)))],
    ids=lambda value: name_of(value) if isinstance(value, Path) else value,
)
def test_commands_on_pages_are_valid(page: Path, line: str) -> None:
    try:
        parse(line)
    except click.exceptions.Exit as exit_request:  # --version prints and exits
        assert exit_request.exit_code == 0


@pytest.mark.parametrize(
    "line", ["lq submti x.yaml", "lq show", "lq status --al", "lq worker stopp", "lq wait 7-3"], ids=str
)
def test_invalid_commands_are_detected(line: str) -> None:
    with pytest.raises(click.UsageError):
        parse(line)


def test_command_lines_are_found_on_pages() -> None:
    assert len(command_lines(README)) > 5
    assert sum(len(command_lines(page)) for page in pages()) > 80


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_shell_blocks_are_valid_shell(page: Path) -> None:
    for block in blocks(page, "sh"):
        bash = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
        assert bash.returncode == 0, f"{block}\n{bash.stderr}"


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_job_files_on_pages_are_valid(page: Path, tmp_path: Path, workshop: Workshop) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "model").symlink_to(workshop.model)
    for block in blocks(page, "yaml"):
        if not re.search(r"^(model|lq):", block, re.MULTILINE):
            continue
        path = tmp_path / "first.yaml"
        required = {"model": "a/b", "data": "c/d"}
        keys = yaml.safe_load(block)
        path.write_text("".join(f"{key}: {value}\n" for key, value in required.items() if key not in keys) + block)
        load_jobs(path)


def test_example_shows_every_key_of_lq() -> None:
    page = DOCS / "reference" / "configuration.md"
    example = next(block for block in blocks(page, "yaml") if block.startswith("lq:"))
    assert set(yaml.safe_load(example)["lq"]) == set(LqSpec.model_fields)
    uncommented = [line for line in example.splitlines()[1:] if re.match(r"  \w", line) and "#" not in line]
    sections = [line.split(":")[0].strip() for line in uncommented]
    assert sections == ["power", "memory", "notify"], "their keys have comments"


def test_settings_on_the_page_are_valid(tmp_path: Path) -> None:
    (text,) = (block for block in blocks(DOCS / "how-to" / "notifications.md", "yaml") if "\n  services:" in block)
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    path.chmod(0o600)
    environ = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "x")
    services = load_settings(path, environ=environ).notify.services
    assert [service.tags for service in services] == [("phone",), ("mail",)]


# --- links and the site ---


def linking_pages() -> list[Path]:
    """Return every page, the changelog and the README of each folder."""
    return [*pages(), ROOT / "CHANGELOG.md", *(ROOT / name / "README.md" for name in (*LAYERS, "tests"))]


@pytest.mark.parametrize("page", linking_pages(), ids=name_of)
def test_every_link_has_a_target(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_source_paths_on_pages_exist(page: Path) -> None:
    paths = re.findall(rf"`((?:{'|'.join([*LAYERS, 'tests'])})/[\w/.]+)`", page.read_text())
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_index_links_to_every_page() -> None:
    index = DOCS / "README.md"
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in links(index)}
    assert [name_of(page) for page in DOCS.rglob("*.md") if page != index and page.resolve() not in linked] == []


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    build = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", tmp_path],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        check=False,
    )
    assert (build.returncode, build.stderr) == (0, "")
    for page in tmp_path.rglob("*.html"):
        assert not re.search(r"<(?:link|script|img)[^>]*(?:href|src)=\"?https?:", page.read_text()), page


# --- the README of each folder ---


@pytest.mark.parametrize("folder", [*LAYERS, "tests"])
def test_folder_readme_names_real_files(folder: str) -> None:
    """A name is relative to the repository, to the folder, or to the package in the first cell of its row."""
    missing, count = [], 0
    for line in (ROOT / folder / "README.md").read_text().splitlines():
        names = re.findall(r"`([\w/.-]+(?:\.py|\.md|/))`", line)
        bases = [ROOT, ROOT / folder, *(ROOT / folder / name for name in names[:1])]
        missing += [name for name in names if not any((base / name).exists() for base in bases)]
        count += len(names)
    assert missing == []
    assert count > 4


@pytest.mark.parametrize("folder", LAYERS)
def test_folder_readme_names_every_part(folder: str) -> None:
    text = (ROOT / folder / "README.md").read_text()
    files = {path.name for path in (ROOT / folder).glob("*.py") if not path.name.startswith("__")}
    packages = {f"{path.parent.name}/" for path in (ROOT / folder).glob("*/__init__.py")}
    assert {name for name in files | packages if f"`{name}`" not in text} == set()
    assert "**start here**" in text
