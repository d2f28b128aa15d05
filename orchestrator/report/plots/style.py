"""The style of the pictures: colours for light and dark pages, frames, axes, PNG output.

Figures are built without pyplot, without global state or a window system.
"""

from __future__ import annotations

import dataclasses
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from orchestrator.report.analysis.curves import Floats, wants_log

DPI = 160  # pixels per inch
BUCKETS = 700
FEWEST_TO_SMOOTH = 30


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


def figure_of(width: int, height: int, theme: Theme) -> Figure:
    """Return an empty figure; sizes are in pixels."""
    return Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=theme.paper)


def frame(axes: Axes, theme: Theme) -> None:
    """Set lines and letters of axes."""
    axes.set_facecolor(theme.paper)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(theme.grey)
    axes.tick_params(colors=theme.grey, labelcolor=theme.ink, labelsize=9.5)
    axes.grid(visible=True, color=theme.faint, linewidth=0.6)
    axes.set_axisbelow(True)


def title(figure: Figure, name: str, line: str, theme: Theme, *, height: float = 0.945, step: float = 0.045) -> None:
    """Write the name of the job, which may contain a dollar sign, and a line below it."""
    figure.text(0.02, height, short(name, 60), size=15, weight="bold", color=theme.ink, parse_math=False)
    figure.text(0.02, height - step, line, size=9.5, color=theme.grey, parse_math=False)


def scale_x(axes: Axes, last: float) -> None:
    """Scale the axis from 0 to the last iteration."""
    span = max(last, 1.0)
    axes.set_xlim(-0.015 * span, 1.015 * span)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def scale_y(axes: Axes, values: Floats, bars: Floats, label: str, theme: Theme) -> None:
    """Scale the axis to the values, logarithmically if they span much, and to the bars if possible."""
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
        axes.set_ylabel(f"{label} (log scale)", size=10, color=theme.ink)
        return
    room = max((high - low) * 0.07, abs(high) * 0.01, 1e-6)
    axes.set_ylim(max(0.0, low - room) if low >= 0 else low - room, high + room)
    axes.set_ylabel(label, size=10, color=theme.ink)


def say(axes: Axes, text: str, theme: Theme) -> None:
    """Write a text into empty axes."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, size=13, color=theme.grey, ha="center", va="center")
    axes.grid(visible=False)
    axes.set_yticks([])


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
        figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
