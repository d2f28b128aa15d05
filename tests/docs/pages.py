"""The pages of the documentation: where they lie, their blocks, their tables, and what in them is generated.

A generated page is prose written by hand around regions that are filled from the program:

    <!-- generated: NAME -->
    …
    <!-- end of NAME -->
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def pages() -> list[Path]:
    """Return README.md and every page below docs/."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the code blocks of a page in these languages, in their order."""
    return [text for language, text in _BLOCK.findall(page.read_text()) if language in languages]


def command_lines(page: Path) -> list[str]:
    """Return every `lq …` command line of a page: in its blocks, and in the first column of its tables."""
    lines = [line for text in blocks(page, "sh") for line in joined(text)]
    lines += [line.removeprefix("$ ") for text in blocks(page, "console") for line in joined(text) if line[:2] == "$ "]
    lines += re.findall(r"^\| `([^`]+)` \|", page.read_text(), re.MULTILINE)
    return [line for line in lines if line.startswith("lq ")]


def joined(text: str) -> list[str]:
    """Return the lines of a shell script, those that end in a backslash joined with the next, `$(…)` left out."""
    whole = text.replace("\\\n", " ")
    return [line.strip() for line in _without_here_documents(whole)]


def _without_here_documents(text: str) -> Iterator[str]:
    end: str | None = None
    for line in text.splitlines():
        if end is not None:
            end = None if line == end else end
            continue
        yield line
        opened = re.search(r"<<'?(\w+)'?", line)
        end = opened[1] if opened else None


def links(page: Path) -> list[str]:
    """Return where the links of a page lead, those to other sites left out."""
    return _LINK.findall(page.read_text())


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as hosts of repositories make them."""
    text = _BLOCK.sub("", page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in _HEADING.findall(text)}


def filled(path: str, **regions: Callable[[], str]) -> str:
    """Return the text of a page with its generated regions filled.

    Args:
        path: of the page, relative to the repository.
        regions: what fills each region, by name.
    """
    text = (ROOT / path).read_text()
    for name, content in regions.items():
        begin, end = f"<!-- generated: {name} -->\n", f"<!-- end of {name} -->"
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        assert found, f"{path} has no region {name}"
        assert closed, f"{path}: the region {name} has no end"
        text = f"{head}{begin}\n{content().strip()}\n\n{end}{tail}"
    return text


def row(*cells: str) -> str:
    """Return a row of a table; a bar inside a cell is kept from ending it."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
