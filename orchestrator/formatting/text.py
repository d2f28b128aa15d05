"""Numbers, times and foreign text as a person reads them in GitHub Markdown. Pure; knows nothing of jobs."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime, tzinfo

NOT_MEASURED = "not measured"

_SPECIAL = re.compile(r"([\\`*|<>\[\]])")
_OUTER_UNDERSCORE = re.compile(r"(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])")


def escaped(text: str) -> str:
    """Return foreign text as one line that Markdown shows as it is, in a table cell too."""
    line = " ".join(text.split())
    return _OUTER_UNDERSCORE.sub(r"\\_", _SPECIAL.sub(r"\\\1", line))


def code(text: str) -> str:
    """Return foreign text as a code span on one line; a pipe is escaped, as GitHub asks inside tables."""
    line = " ".join(text.split()).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{space}{line}{space}{fence}"


def whole(value: int | None) -> str:
    """15000 -> 15,000."""
    return NOT_MEASURED if value is None else f"{value:,}"


def or_unknown(value: int | None) -> str:
    """As `whole`, with a question mark where it is not known: for narrow cells."""
    return "?" if value is None else whole(value)


def loss(value: float | None) -> str:
    """Four decimals, or three digits where four decimals would hide them."""
    if value is None:
        return NOT_MEASURED
    return f"{value:.4f}" if not math.isfinite(value) or abs(value) >= 0.001 or value == 0 else f"{value:.2e}"


def loss_with_error(value: float, standard_error: float | None) -> str:
    """0.1670 ± 0.0120; the error left out where it was not measured."""
    return loss(value) if standard_error is None else f"{loss(value)} ± {loss(standard_error)}"


def loss_with_interval(value: float, low: float | None, high: float | None) -> str:
    """0.1670 (0.1432 to 0.1911); the interval left out where it was not measured."""
    return loss(value) if low is None or high is None else f"{loss(value)} ({loss(low)} to {loss(high)})"


def share(value: float | None) -> str:
    """0.00598 -> 0.598 %."""
    return NOT_MEASURED if value is None else f"{100 * value:.3g} %"


def figure(value: float | None, unit: str = "") -> str:
    """Three digits or all whole ones, with a unit: 0.853 it/s, 1,812 tokens/s."""
    if value is None:
        return NOT_MEASURED
    text = f"{value:,.0f}" if math.isfinite(value) and abs(value) >= 100 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def size(value: int | None) -> str:
    """Bytes in the decimal units MLX-LM reports: 4.174 GB, 37.2 MB."""
    if value is None:
        return NOT_MEASURED
    for unit, factor, digits in (("GB", 1e9, 3), ("MB", 1e6, 1), ("kB", 1e3, 1)):
        if value >= factor:
            return f"{value / factor:,.{digits}f} {unit}"
    return f"{value} bytes"


def duration(seconds: float | None) -> str:
    """4.2 s, 59 s, 4 min 12 s, 8 h 18 min, 2 d 3 h."""
    if seconds is None:
        return NOT_MEASURED
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    rest = round(seconds)
    for (unit, length), (small, part) in (
        (("d", 86400), ("h", 3600)),
        (("h", 3600), ("min", 60)),
        (("min", 60), ("s", 1)),
    ):
        if rest >= length:
            return f"{rest // length} {unit} {rest % length // part} {small}"
    return f"{rest} s"


def moment(time: float | None, zone: tzinfo | None) -> str:
    """Return 2026-01-31 22:04:05 +0100 in `zone`; None is the machine's own zone."""
    if time is None:
        return NOT_MEASURED
    return f"{datetime.fromtimestamp(time, tz=zone).astimezone(zone):%Y-%m-%d %H:%M:%S %z}"


def times(count: int, noun: str) -> str:
    """1 restart, 2 restarts."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def planned_of(count: int, planned: int) -> str:
    """Say how many restarts follow a stop that was asked for, and no death: " (2 after a planned stop)".

    Args:
        count: attempts after the first.
        planned: those of them; nothing is said of none.
    """
    if not planned:
        return ""
    which = "" if count == 1 else "all " if count == planned else f"{planned:,} "
    return f" ({which}after a planned stop)"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "") -> list[str]:
    """Return the lines of an aligned table.

    Args:
        header: the column titles.
        rows: the cells, already escaped.
        right: one letter a column, `r` where numbers stand; the rest is to the left.
    """
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


def cell(text: str | None) -> str:
    """Return foreign text of several lines as a table cell that keeps them."""
    if text is None:
        return NOT_MEASURED
    lines = [escaped(line) for line in text.strip().splitlines()]
    return "<br>".join(lines) if any(lines) else "(empty)"
