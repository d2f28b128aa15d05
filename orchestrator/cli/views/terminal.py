"""What the verbs write on: how wide it is, what colours and characters it takes. Bars and curves in characters.

Everything is laid out with the characters people like to see; where they cannot be printed, the last step puts one of
ASCII in the place of each. Of rich only the width of characters is used, so that `lq status` is quick.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from typing import TextIO

import click
from rich.cells import cell_len

from orchestrator.formatting.text import printable

LEVELS = "▁▂▃▄▅▆▇█"
BROKEN = "×"
"""In the place of a number that is not finite."""

_FULL, _HALF, _EMPTY, _CUT = "━", "╸", "─", "…"
_ASCII = str.maketrans(
    {**dict(zip(LEVELS, "_.-~=+*#", strict=True)), _FULL: "#", _HALF: "+", _EMPTY: ".", BROKEN: "!", _CUT: "~"}
    | {"–": "-", "·": "-", "±": "~", "→": ">"}
)
_FEW_POINTS = 20
"""With fewer, no point is taken for a spike."""

Piece = str | tuple[str, str]
"""Some text, or text and its style."""

STYLES: Mapping[str, Mapping[str, object]] = {
    "": {},
    "dim": {"dim": True},
    "bold": {"bold": True},
    "good": {"fg": "green"},
    "careful": {"fg": "yellow"},
    "bad": {"fg": "red"},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paper:
    """A terminal, a pipe or a file, as far as writing on it is concerned."""

    width: int  # columns
    colours: bool = False
    ascii: bool = False  # prints nothing else
    endless: bool = False  # a pipe or a file: lines may be as long as they like, so nothing is cut

    @classmethod
    def of(cls, stream: TextIO, environment: Mapping[str, str] = os.environ) -> Paper:
        """Look at a stream.

        Args:
            stream: such as sys.stdout.
            environment: such as os.environ.
        """
        terminal = stream.isatty()
        return cls(
            width=_columns(stream, environment) if terminal else _said(environment) or 80,
            colours=_takes_colours(environment, terminal=terminal),
            ascii=_is_ascii(stream, environment),
            endless=not terminal,
        )

    def line(self, *pieces: Piece) -> str:
        """Return a line as it is to be written; it ends where the paper does."""
        found, left = [], math.inf if self.endless else self.width
        for piece in pieces:
            text, style = (piece, "") if isinstance(piece, str) else piece
            text = printable(text)
            if left <= 0:
                break
            shown = text if cell_len(text) <= left else cut(text, int(left))
            left -= cell_len(shown) if shown == text else left
            found.append(self.dyed(shown, style))
        return self.printable("".join(found).rstrip())

    def dyed(self, text: str, style: str) -> str:
        """Return text in a style, where the paper takes colours."""
        if not self.colours or not style or not text:
            return text
        return click.style(text, **STYLES[style])  # type: ignore[arg-type] # the names of its arguments

    def printable(self, text: str) -> str:
        """Return text in characters that the paper can print, as far as they are ours."""
        return text.translate(_ASCII) if self.ascii else text


def _columns(stream: TextIO, environment: Mapping[str, str]) -> int:
    said = _said(environment)
    if said:
        return said
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _said(environment: Mapping[str, str]) -> int:
    said = environment.get("COLUMNS", "")
    return int(said) if said.isdigit() else 0


def _takes_colours(environment: Mapping[str, str], *, terminal: bool) -> bool:
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR"):
        return True
    return terminal and is_able(environment)


def is_able(environment: Mapping[str, str]) -> bool:
    """Say whether the terminal understands more than text."""
    return environment.get("TERM", "dumb") not in ("dumb", "unknown", "")


def _is_ascii(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Say whether only ASCII comes out. In the C locale Python writes UTF-8, and the terminal need not show it."""
    named = next((said for name in ("LC_ALL", "LC_CTYPE", "LANG") if (said := environment.get(name))), "")
    if named in ("C", "POSIX"):
        return True
    try:
        "".join(map(chr, _ASCII)).encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return True
    return False


def cut(text: str, cells: int) -> str:
    """Return the beginning of a text, in so many columns, and a mark that it goes on."""
    if cell_len(text) <= cells:
        return text
    return f"{_head(text, cells - 1)}{_CUT}" if cells > 0 else ""


def shortened(name: str, cells: int) -> str:
    """Return a name in so many columns: its middle goes, because names of a kind differ at their ends."""
    if cell_len(name) <= cells:
        return name
    tail = _head(name[::-1], (cells - 1) // 2)[::-1]
    return f"{_head(name, cells - 1 - cell_len(tail))}{_CUT}{tail}" if cells > 0 else ""


def _head(text: str, cells: int) -> str:
    found, width = [], 0
    for char in text:
        width += cell_len(char)
        if width > cells:
            break
        found.append(char)
    return "".join(found)


def padded(text: str, cells: int, *, right: bool = False) -> str:
    """Return a text with spaces up to so many columns.

    Args:
        text: of one line.
        cells: columns.
        right: the spaces come first, as before a number.
    """
    space = " " * (cells - cell_len(text))
    return f"{space}{text}" if right else f"{text}{space}"


def bar(share: float, cells: int) -> tuple[str, str]:
    """Return the full part of a bar and the empty one.

    Args:
        share: 0..1; more is full.
        cells: columns.
    """
    halves = int(min(max(share, 0.0), 1.0) * cells * 2) if math.isfinite(share) else 0
    full = _FULL * (halves // 2) + _HALF * (halves % 2)
    return full, _EMPTY * (cells - len(full))


def curve(values: Sequence[float], cells: int) -> str:
    """Return the last values as columns of different height, one a character; a spike does not flatten the others.

    Args:
        values: the oldest first.
        cells: columns, at most.
    """
    shown = values[-cells:] if cells > 0 else []
    finite = sorted(value for value in shown if math.isfinite(value))
    if not finite:
        return BROKEN * len(shown)
    low, high = finite[0], finite[-1]
    usual = finite[int(0.95 * (len(finite) - 1))]
    late = list(shown).index(high) > len(shown) // 10  # a loss that begins high and falls is no spike
    if late and len(finite) >= _FEW_POINTS and high - low > 3 * (usual - low):
        high = usual
    return "".join(_level(value, low, high) for value in shown)


def whole_curve(values: Sequence[float], cells: int) -> str:
    """Return all values as a curve of so many characters at most, each the mean of a stretch.

    Args:
        values: the oldest first.
        cells: columns, at most.
    """
    count = min(cells, len(values))
    edges = [place * len(values) // count for place in range(count + 1)] if count else [0]
    stretches = [values[start:end] for start, end in itertools.pairwise(edges)]
    return curve([sum(one) / len(one) for one in stretches], cells)


def _level(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return BROKEN
    if high <= low:
        return LEVELS[len(LEVELS) // 2 if value <= low else -1]
    return LEVELS[min(int((value - low) / (high - low) * len(LEVELS)), len(LEVELS) - 1)]
