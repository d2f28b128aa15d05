"""Read the pages of the documentation: paths, code blocks, tables, links and generated regions.

A generated page is written by hand around regions that are filled from the program:

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

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def pages() -> list[Path]:
    """Return README.md, CONTRIBUTING.md and every page below docs/."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the code blocks of a page in these languages, in order."""
    return [text for language, text in BLOCK.findall(page.read_text()) if language in languages]


def command_lines(page: Path) -> list[str]:
    """Return every `lq …` command line in the code blocks and in the first column of the tables of a page."""
    lines = [line for text in blocks(page, "sh") for line in script_lines(text)]
    lines += [
        line.removeprefix("$ ") for text in blocks(page, "console") for line in script_lines(text) if line[:2] == "$ "
    ]
    lines += re.findall(r"^\| `([^`]+)` \|", page.read_text(), re.MULTILINE)
    return [line for line in lines if line.startswith("lq ")]


def script_lines(text: str) -> list[str]:
    """Return the lines of a shell script without here documents; a backslash at the end joins two lines."""
    return [line.strip() for line in _without_here_documents(text.replace("\\\n", " "))]


def _without_here_documents(text: str) -> Iterator[str]:
    end: str | None = None
    for line in text.splitlines():
        if end is not None:
            end = None if line == end else end
            continue
        yield line
        start = re.search(r"<<'?(\w+)'?", line)
        end = start[1] if start else None


def links(page: Path) -> list[str]:
    """Return the targets of the links of a page, without links to other sites."""
    return _LINK.findall(BLOCK.sub("", page.read_text()))


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as code hosts generate them."""
    text = BLOCK.sub("", page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in _HEADING.findall(text)}


def filled(path: str, **regions: Callable[[], str]) -> str:
    """Return the text of a page with its generated regions filled.

    Args:
        path: relative to the repository.
        regions: the function that returns the text of each region, by name.
    """
    text = (ROOT / path).read_text()
    for name, content in regions.items():
        begin, end = f"<!-- generated: {name} -->\n", f"<!-- end of {name} -->"
        head, start, rest = text.partition(begin)
        _, stop, tail = rest.partition(end)
        assert start, f"{path} has no region {name}"
        assert stop, f"{path}: the region {name} has no end"
        text = f"{head}{begin}\n{content().strip()}\n\n{end}{tail}"
    return text


def row(*cells: str) -> str:
    """Return a row of a Markdown table, with bars inside the cells escaped."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
