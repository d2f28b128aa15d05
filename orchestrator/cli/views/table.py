"""Rows under titles, in as many columns as the paper has room for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from rich.cells import cell_len

from orchestrator.cli.views.terminal import Paper, Piece, padded, shortened
from orchestrator.formatting.text import NONE, printable

NARROWEST = 20
"""Columns that a name keeps; before it has fewer, whole columns go."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table."""

    title: str
    cells: Sequence[Piece]  # one a row
    right: bool = True  # a number ends where the others do
    name: bool = False  # is shortened where there is too little room
    goes: int = 0  # where there is too little room, the highest goes first; 0 stays

    @property
    def says_anything(self) -> bool:
        """Whether a cell holds more than that there is nothing."""
        return any(text_of(cell) not in ("", NONE) for cell in self.cells)

    def width(self) -> int:
        """Return the columns that it takes on the paper, without the gap after it."""
        return max(cell_len(self.title), *(cell_len(text_of(cell)) for cell in self.cells))


def text_of(piece: Piece) -> str:
    """Return the text of a piece."""
    return printable(piece if isinstance(piece, str) else piece[0])


def grid(columns: Sequence[Column], paper: Paper) -> Iterator[str]:
    """Yield the lines of a table: its titles, and a line a row.

    Args:
        columns: with equally many cells, at least one.
        paper: what it is for.
    """
    shown, widths, gap = _laid_out([one for one in columns if one.says_anything], paper)
    yield paper.line(*_row([(one.title, "dim") for one in shown], shown, widths, gap))
    for place in range(len(shown[0].cells)):
        yield paper.line(*_row([one.cells[place] for one in shown], shown, widths, gap))


def _laid_out(columns: Sequence[Column], paper: Paper) -> tuple[list[Column], list[int], int]:
    """Return the columns there is room for, how wide each is, and the spaces between two."""
    shown = list(columns)
    while True:
        widths = [one.width() for one in shown]
        if paper.endless:
            return shown, widths, 2
        name = next((place for place, one in enumerate(shown) if one.name), None)
        for gap in (2, 1):
            left = paper.width - sum(widths) - gap * (len(shown) - 1)
            if left >= 0 or (gap == 1 and name is not None and widths[name] + left >= NARROWEST):
                if left < 0 and name is not None:
                    widths[name] += left
                return shown, widths, gap
        last = max(shown, key=lambda one: one.goes)
        if not last.goes:
            if name is not None:
                widths[name] = max(1, widths[name] + paper.width - sum(widths) - (len(shown) - 1))
            return shown, widths, 1
        shown.remove(last)


def _row(cells: Sequence[Piece], columns: Sequence[Column], widths: Sequence[int], gap: int) -> list[Piece]:
    pieces: list[Piece] = []
    for cell, column, width in zip(cells, columns, widths, strict=True):
        style = "" if isinstance(cell, str) else cell[1]
        text = padded(shortened(text_of(cell), width), width, right=column.right)
        pieces += [(text, style), " " * gap]
    return pieces
