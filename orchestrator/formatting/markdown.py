"""Text and tables as GitHub Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from orchestrator.formatting.text import NONE

_SPECIAL = re.compile(r"([\\`*|<>\[\]]|&(?=#?\w+;))")
_BARE_PIPE = re.compile(r"(?<!\\)\|")
_OUTER_UNDERSCORE = re.compile(r"(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")


def escaped(text: str) -> str:
    """Return text on one line with Markdown's special characters escaped."""
    line = " ".join(text.split())
    return _OUTER_UNDERSCORE.sub(r"\\_", _SPECIAL.sub(r"\\\1", line))


def code(text: str) -> str:
    """Return text as a code span on one line."""
    line = " ".join(text.split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def cell(text: str | None) -> str:
    """Return text of several lines as a table cell that keeps the lines."""
    if text is None:
        return NONE
    lines = [escaped(line) for line in text.strip().splitlines()]
    return "<br>".join(lines) if any(lines) else "(empty)"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "") -> list[str]:
    """Return the lines of an aligned table of escaped cells; `right` has an `r` for each column to align right."""
    rows = [[_BARE_PIPE.sub(r"\|", text) for text in row] for row in rows]
    widths = [max(3, *(len(row[column]) for row in (header, *rows))) for column in range(len(header))]
    sides = right.ljust(len(header), "l")

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if side == "r" else cell.ljust(width)
            for cell, width, side in zip(cells, widths, sides, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = ("-" * (width - 1) + ":" if side == "r" else "-" * width for width, side in zip(widths, sides, strict=True))
    return [line(header), f"| {' | '.join(rule)} |", *(line(row) for row in rows)]


def values(title: str, rows: Iterable[tuple[str, str | None]]) -> list[str]:
    """Return a section with a table of the known values; empty if none is known."""
    known = [(name, value) for name, value in rows if value and value != NONE]
    return [f"## {title}", "", *table(("What", "Value"), known)] if known else []


def folded(summary: str, details: Iterable[str]) -> list[str]:
    """Return a list item with details below it, which the HTML report folds."""
    return [f"- {summary}", *(f"  - {detail}" for detail in details if detail)]
