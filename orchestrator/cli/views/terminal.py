"""The terminal or pipe that views are printed on, and the parts that views share.

A view is a function from a snapshot or a result to a rich renderable. On a terminal it is cut and wrapped to the
terminal's width. In a pipe or a file nothing is cut, wrapped or coloured.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from rich.cells import cell_len, set_cell_size
from rich.console import COLOR_SYSTEMS, Console
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from orchestrator.formatting.text import NONE, printable

if TYPE_CHECKING:
    from rich.console import ConsoleOptions, RenderableType, RenderResult

    from jobs.model.job import Job

LEVELS = "▁▂▃▄▅▆▇█"
NOT_FINITE = "×"
"""Stands for nan and infinity."""

MARKS = ("⟦", "⟧")
"""Stand around the learned part of a row."""

UNCUT = 100_000
"""Columns of a pipe."""

NARROWEST_NAME = 20
"""Columns. Before a name gets narrower, a table drops columns."""

MARKED = "reverse"
"""Style of the selected job of `lq watch`."""

_THEME = Theme({"good": "green", "careful": "yellow", "bad": "red"})
_ELLIPSIS = "…"
_ASCII = str.maketrans(
    {**dict(zip(LEVELS, "_.-~=+*#", strict=True)), NOT_FINITE: "!", _ELLIPSIS: "~"}
    | {"━": "#", "╸": "+", "╺": ".", "█": "=", "░": "?", "–": "-", "·": "-", "±": "~", "→": ">"}
    | {MARKS[0]: "[[", MARKS[1]: "]]"}
)


def console_for(stream: TextIO, environment: Mapping[str, str] = os.environ) -> Console:
    """Return the console of a stream."""
    return Console(
        file=stream,
        width=None if stream.isatty() else UNCUT,
        theme=_THEME,
        highlight=False,
        markup=False,
        emoji=False,
        _environ=environment,
    )


def print_view(view: RenderableType) -> None:
    """Print a view on standard output."""
    import click

    console = console_for(sys.stdout)
    with console.capture() as capture:
        console.print(Printable(view, ascii_only=is_ascii_only(sys.stdout)), crop=False)
    text = capture.get()
    if not sys.stdout.isatty():
        text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    click.echo(text, nl=False, color=True)


def is_ascii_only(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether to print ASCII only. In the C locale Python writes UTF-8, which not every terminal shows."""
    locale = next((value for name in ("LC_ALL", "LC_CTYPE", "LANG") if (value := environment.get(name))), "")
    if locale in ("C", "POSIX"):
        return True
    try:
        "".join(map(chr, _ASCII)).encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return True
    return False


class Printable:
    """A view in characters that the terminal can print, without the control characters of foreign text."""

    def __init__(self, view: RenderableType, *, ascii_only: bool) -> None:
        """Wrap a view."""
        self._view, self._ascii_only = view, ascii_only

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the view and replace characters."""
        for segment in console.render(self._view, options):
            text = "\n".join(map(printable, segment.text.split("\n")))
            if self._ascii_only:
                is_rest_of_bar = segment.style is not None and segment.style.dim
                text = (text.replace("━", "╺") if is_rest_of_bar else text).translate(_ASCII)
            yield segment if segment.control else Segment(text, segment.style)


def line_styler(stream: TextIO) -> Callable[[str, str], str]:
    """Return a function that styles single lines, many times faster than a view is printed."""
    console, ascii_only = console_for(stream), is_ascii_only(stream)
    system = None if console.no_color or console.color_system is None else COLOR_SYSTEMS[console.color_system]

    def styled(text: str, style: str) -> str:
        shown = text.translate(_ASCII) if ascii_only else text
        return console.get_style(style).render(shown, color_system=system) if style else shown

    return styled


class Fitted:
    """A view that is laid out for the columns it gets; UNCUT in a pipe."""

    def __init__(self, layout: Callable[[int], RenderableType]) -> None:
        """Take the function that lays the view out."""
        self._layout = layout

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Lay the view out."""
        yield self._layout(options.max_width)


def share(job: Job) -> str:
    """Return the share of the iterations that is done: 52%."""
    return f"{100 * job.iteration // job.iters}%"


def labelled(label: str, text: str, style: str = "", *, width: int = 0, label_style: str = "") -> Table:
    """Return a label, at least `width` columns wide, and a text that wraps next to it."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True, min_width=width)
    table.add_column(overflow="fold")
    table.add_row(Text(label, style=label_style or style), Text(text, style=style))
    return table


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    cells: Sequence[str | Text]  # one for each row
    right: bool = True  # aligned as numbers are
    is_name: bool = False  # may be shortened
    drop: int = 0  # if the table is too wide, the column with the highest number is left out first; 0: never

    @property
    def is_filled(self) -> bool:
        """Whether any cell has a value."""
        return any(str(cell) not in ("", NONE) for cell in self.cells)

    @property
    def width(self) -> int:
        """Columns of the widest cell or the title."""
        return max(cell_len(self.title), *(cell_len(str(cell)) for cell in self.cells))

    @property
    def least_width(self) -> int:
        """Columns that the table gives it at least."""
        return min(self.width, NARROWEST_NAME) if self.is_name else self.width

    def shortened(self, width: int) -> Sequence[str | Text]:
        """Return the cells, with names of at most `width` columns."""
        return [shortened(str(cell), width) for cell in self.cells] if self.is_name else self.cells


def fitted_table(columns: Sequence[Column], width: int, marked: int | None = None) -> Table:
    """Return a table that leaves out empty columns, and as many others as needed to fit into a width.

    Args:
        marked: the row that is shown in reverse.
    """
    shown = [column for column in columns if column.is_filled]
    while _spare(shown, width, gap=1) < 0 and (last := max(shown, key=lambda column: column.drop)).drop:
        shown.remove(last)
    gap = 2 if width - sum(column.width for column in shown) >= 2 * (len(shown) - 1) else 1
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
    for column in shown:
        table.add_column(column.title, justify="right" if column.right else "left", no_wrap=True, overflow="ellipsis")
    spare = _spare(shown, width, gap=gap)  # negative if no further column may be left out
    rows = zip(*(column.shortened(max(1, column.least_width + spare)) for column in shown), strict=True)
    for place, row in enumerate(rows):
        table.add_row(*row, style=MARKED if place == marked else None)
    return table


def _spare(columns: Sequence[Column], width: int, *, gap: int) -> int:
    return width - sum(column.least_width for column in columns) - gap * (len(columns) - 1)


def shortened(name: str, width: int) -> str:
    """Return a name in at most `width` columns. The middle is left out, because similar names differ at their ends."""
    name = printable(name)
    if cell_len(name) <= width:
        return name
    tail = set_cell_size(name[::-1], max(0, (width - 1) // 2)).rstrip()[::-1]
    return f"{set_cell_size(name, width - 1 - cell_len(tail)).rstrip()}{_ELLIPSIS}{tail}" if width > 0 else ""


_SPIKE_POINTS = 20
"""A series with fewer points has no spikes."""


class Sparkline:
    """A sparkline as wide as its table cell allows."""

    def __init__(self, values: Sequence[float], style: str, *, whole: bool = False) -> None:
        """Take the values, the oldest first; `whole` shows the means of equal parts instead of the last values."""
        self._values, self._style, self._draw = values, style, averaged if whole else sparkline

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render one line."""
        yield Segment(self._draw(self._values, options.max_width), console.get_style(self._style))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the least and the most columns."""
        return Measurement(1, max(1, min(len(self._values), options.max_width)))


def sparkline(values: Sequence[float], width: int) -> str:
    """Return the last `width` values, one character each. The scale ignores a spike."""
    shown = values[-width:] if width > 0 else []
    finite = sorted(filter(math.isfinite, shown))
    if not finite:
        return NOT_FINITE * len(shown)
    low, high = finite[0], finite[-1]
    usual = finite[int(0.95 * (len(finite) - 1))]
    is_late = list(shown).index(high) > len(shown) // 10  # a high loss at the beginning is not a spike
    if is_late and len(finite) >= _SPIKE_POINTS and high - low > 3 * (usual - low):
        high = usual
    return "".join(_level(value, low, high) for value in shown)


def averaged(values: Sequence[float], width: int) -> str:
    """Return all values as a sparkline of at most `width` columns; each is the mean of an equal part."""
    parts = min(width, len(values))
    edges = itertools.pairwise(part * len(values) // parts for part in range(parts + 1)) if parts else ()
    return sparkline([sum(values[start:end]) / (end - start) for start, end in edges], width)


def _level(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return NOT_FINITE
    if high <= low:
        return LEVELS[len(LEVELS) // 2 if value <= low else -1]
    return LEVELS[min(int((value - low) / (high - low) * len(LEVELS)), len(LEVELS) - 1)]
