"""A series of numbers as a row of block characters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.measure import Measurement
from rich.segment import Segment

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

LEVELS = "▁▂▃▄▅▆▇█"
NOT_FINITE = "×"
"""Stands for nan and infinity."""

_SPIKE_POINTS = 20
"""A series with fewer points has no spikes."""


class Sparkline:
    """A sparkline as wide as its table cell allows."""

    def __init__(self, values: Sequence[float], style: str, *, whole: bool = False) -> None:
        """Take the series.

        Args:
            values: the oldest first.
            style: of the characters.
            whole: show the means of equal parts of the series instead of its last values.
        """
        self._values, self._style, self._draw = values, style, averaged if whole else sparkline

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render one line."""
        yield Segment(self._draw(self._values, options.max_width), console.get_style(self._style))

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """Return the least and the most columns."""
        return Measurement(1, max(1, min(len(self._values), options.max_width)))


def sparkline(values: Sequence[float], width: int) -> str:
    """Return the last values, one character each. The scale ignores a spike.

    Args:
        values: the oldest first.
        width: columns, at most.
    """
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
    return sparkline(list(_means(values, min(width, len(values)))), width)


def _means(values: Sequence[float], parts: int) -> Iterator[float]:
    edges = [part * len(values) // parts for part in range(parts + 1)] if parts else []
    for start, end in itertools.pairwise(edges):
        yield sum(values[start:end]) / (end - start)


def _level(value: float, low: float, high: float) -> str:
    if not math.isfinite(value):
        return NOT_FINITE
    if high <= low:
        return LEVELS[len(LEVELS) // 2 if value <= low else -1]
    return LEVELS[min(int((value - low) / (high - low) * len(LEVELS)), len(LEVELS) - 1)]
