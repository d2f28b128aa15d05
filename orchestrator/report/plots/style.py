"""The style of the pictures: colours for light and dark pages, axes, legends, PNG output.

Pictures are portrait, for a phone: on a page of 390 CSS pixels, with its margins, a point of matplotlib is one CSS
pixel. Figures are built without pyplot, without global state or a window system.
"""

from __future__ import annotations

import dataclasses
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from orchestrator.report.analysis.curves import Floats, outline, running_median, smoothed, wants_log

WIDTH = 358  # points of matplotlib, and CSS pixels on a phone
SCALE = 3  # pixels of the PNG for each of them
TEXT, HEADING = 12.0, 15.0  # sizes of letters, points

_BUCKETS = 700
_FEWEST_TO_SMOOTH = 30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Theme:
    """Colours after Okabe and Ito, safe for common colour blindness."""

    paper: str
    ink: str
    grey: str
    faint: str
    raw: str
    train: str
    validation: str
    restart: str
    rollback: str
    bad: str
    others: tuple[str, ...]  # for runs that are compared


LIGHT = Theme(
    paper="#FFFFFF",
    ink="#222222",
    grey="#666666",
    faint="#D9D9D9",
    raw="#9CCBEB",
    train="#0072B2",
    validation="#C24E00",
    restart="#7A3E76",
    rollback="#00664D",
    bad="#000000",
    others=("#0072B2", "#C24E00", "#00805F", "#7A3E76", "#8A6D00", "#222222"),
)
DARK = Theme(
    paper="#0D1117",
    ink="#E6EDF3",
    grey="#9DA7B1",
    faint="#2A313A",
    raw="#38729B",
    train="#56B4E9",
    validation="#F28E3C",
    restart="#CC99C9",
    rollback="#2FC498",
    bad="#FFFFFF",
    others=("#56B4E9", "#F28E3C", "#2FC498", "#CC99C9", "#F0E442", "#E6EDF3"),
)


def figure_of(height: float, name: str, theme: Theme) -> Figure:
    """Return a figure with the name of a job, which may contain a dollar sign."""
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72 * SCALE, facecolor=theme.paper, layout="constrained")
    figure.suptitle(short(name, 40), x=0.02, ha="left", size=HEADING, weight="bold", color=theme.ink, parse_math=False)
    return figure


def frame(axes: Axes, last: float, theme: Theme) -> None:
    """Set lines, letters and the axis of the iterations, from 0 to the last one."""
    axes.set_facecolor(theme.paper)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(theme.grey)
    axes.tick_params(colors=theme.grey, labelcolor=theme.ink, labelsize=TEXT)
    axes.grid(visible=True, color=theme.faint, linewidth=0.6)
    axes.set_axisbelow(True)
    span = max(last, 1.0)
    axes.set_xlim(-0.015 * span, 1.015 * span)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def scale_y(axes: Axes, values: Floats, bars: Floats) -> None:
    """Scale the axis to the finite values, logarithmically if they span much, and to the bars if possible."""
    shown = np.concatenate((values, bars))
    shown = shown[np.isfinite(shown)]
    low, high = float(shown.min()), float(shown.max())
    if wants_log(values):
        # an error bar may reach below zero, which a logarithmic axis does not have
        low = float(values[np.isfinite(values)].min())
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 2e3 else (1.0,)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        room = (high / low) ** 0.06
        axes.set_ylim(low / room, high * room)
        return
    room = max((high - low) * 0.07, abs(high) * 0.01, 1e-6)
    axes.set_ylim(max(0.0, low - room) if low >= 0 else low - room, high + room)


def line(axes: Axes, x: Floats, y: Floats, **look: Any) -> None:
    """Draw the finite values of a series, with gaps between them."""
    axes.plot(*outline(x, np.where(np.isfinite(y), y, np.nan), _BUCKETS), **look)


def noisy_line(axes: Axes, x: Floats, y: Floats, theme: Theme, *, name: str = "", median: bool = False) -> None:
    """Draw a noisy series in a faint colour and its mean or median in a strong one, if there are enough values."""
    if len(x) < _FEWEST_TO_SMOOTH:
        line(axes, x, y, color=theme.train, linewidth=1.8, marker="o", markersize=4, label=name or "each report")
        return
    line(axes, x, y, color=theme.raw, linewidth=0.7)
    window = max(5, len(x) // 60) // 2 * 2 + 1
    finite, level = np.isfinite(y), np.full(len(y), np.nan)
    level[finite] = running_median(y[finite], window) if median else smoothed(y[finite], window)
    label = f"{'median' if median else 'mean'} of {window} reports"
    line(axes, x, level, color=theme.train, linewidth=1.9, label=f"{name}, {label}" if name else label)


def legend(where: Axes | Figure, theme: Theme, **place: Any) -> None:
    """Add the legend, whose names may contain a dollar sign."""
    made = where.legend(frameon=False, fontsize=TEXT, labelcolor=theme.ink, handlelength=1.6, alignment="left", **place)
    for text in made.get_texts():
        text.set_parse_math(False)


def short(text: str, most: int) -> str:
    """Return a text, cut to a number of letters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


@contextmanager
def any_script() -> Iterator[None]:
    """Ignore warnings about letters that the font lacks: a job may have a name in any script."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def png(figure: Figure) -> bytes:
    """Return the figure as PNG."""
    buffer = io.BytesIO()
    with any_script():
        figure.savefig(buffer, format="png")
    return buffer.getvalue()
