"""Speed, memory, learning rate and gradient norm by iteration, one panel below the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from jobs.model.job import ProgressPoint
from orchestrator.report.analysis.curves import Floats
from orchestrator.report.facts import Facts
from orchestrator.report.plots import style
from orchestrator.report.plots.loss import subtitle
from orchestrator.report.plots.series import column
from orchestrator.report.plots.style import LIGHT, Theme

PANEL_HEIGHT = 210  # points

_GB = 1e9
_FAR = 3.0
"""A memory limit that is this many times the highest value is named and not drawn: it would flatten the others."""


def analysis(facts: Facts, points: Sequence[ProgressPoint], *, theme: Theme = LIGHT) -> Figure | None:
    """Draw a panel for each series that was measured; None if none was."""
    x = column(points, lambda point: point.iteration)
    known = [panel for panel in _PANELS if np.isfinite(column(points, panel[1])).any()]
    if not known:
        return None
    figure = style.figure_of(80 + PANEL_HEIGHT * len(known), facts.job.name, theme)
    figure.supxlabel(subtitle(facts), x=0.02, ha="left", size=style.TEXT, color=theme.grey, parse_math=False)
    last = max(facts.progress.iterations_done, float(x.max()))
    for axes, (name, value, draw) in zip(np.ravel(figure.subplots(len(known))), known, strict=True):
        style.frame(axes, last, theme)
        draw(axes, x, column(points, value), points, theme)
        title: dict[str, Any] = {"title": name, "title_fontproperties": {"size": style.TEXT + 1, "weight": "bold"}}
        style.legend(axes, theme, loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, columnspacing=1.2, **title)
        axes.get_legend().get_title().set_color(theme.ink)
    return figure


def _speed(axes: Axes, x: Floats, speed: Floats, _: Sequence[ProgressPoint], theme: Theme) -> None:
    style.scale_y(axes, np.append(speed, 0.0), np.empty(0))
    style.noisy_line(axes, x, speed, theme)


def _memory(axes: Axes, x: Floats, _: Floats, points: Sequence[ProgressPoint], theme: Theme) -> None:
    series = [
        ("trainer", column(points, lambda point: point.footprint_bytes), theme.train, "-"),
        ("MLX, peak", column(points, lambda point: point.peak_bytes), theme.restart, "--"),
        ("MLX, active", column(points, lambda point: point.active_bytes), theme.rollback, "-."),
        ("swap of the machine", column(points, lambda point: point.swap_bytes), theme.validation, ":"),
    ]
    known = [
        (name, values / _GB, colour, dashes) for name, values, colour, dashes in series if np.isfinite(values).any()
    ]
    highest = max(float(np.nanmax(values)) for _, values, _, _ in known)
    for name, values, colour, dashes in known:
        style.line(axes, x, values, color=colour, linestyle=dashes, linewidth=1.6, label=name)
    limit = next((point.limit_bytes / _GB for point in reversed(points) if point.limit_bytes), None)
    if limit is not None:
        axes.plot([], [], ":", color=theme.grey, label=f"limit: {limit:,.3g}")
        if limit <= _FAR * highest:
            axes.axhline(limit, color=theme.grey, linestyle=":", linewidth=1.6)
            highest = max(highest, limit)
    axes.set_ylim(0, max(highest * 1.07, 1e-6))


def _rate(axes: Axes, x: Floats, rate: Floats, _: Sequence[ProgressPoint], theme: Theme) -> None:
    style.line(axes, x, rate, color=theme.train, linewidth=1.8, label="each report")
    axes.set_ylim(0, max(float(np.nanmax(rate)) * 1.07, 1e-12))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))


def _norm(axes: Axes, x: Floats, norm: Floats, _: Sequence[ProgressPoint], theme: Theme) -> None:
    style.scale_y(axes, norm, np.empty(0))
    style.noisy_line(axes, x, norm, theme)


def _rewards(axes: Axes, x: Floats, chosen: Floats, points: Sequence[ProgressPoint], theme: Theme) -> None:
    rejected = column(points, lambda point: point.rejected_reward)
    style.scale_y(axes, np.concatenate([chosen, rejected, chosen - rejected]), np.empty(0))
    for name, values, colour, dashes in (
        ("chosen", chosen, theme.train, "-"),
        ("rejected", rejected, theme.rollback, "--"),
        ("margin", chosen - rejected, theme.validation, ":"),
    ):
        style.line(axes, x, values, color=colour, linestyle=dashes, linewidth=1.6, label=name)


def _accuracy(axes: Axes, x: Floats, accuracy: Floats, _: Sequence[ProgressPoint], theme: Theme) -> None:
    style.noisy_line(axes, x, accuracy, theme)
    axes.set_ylim(0, 1.05)


_Draw = Callable[[Axes, Floats, Floats, Sequence[ProgressPoint], Theme], None]
_PANELS: tuple[tuple[str, Callable[[ProgressPoint], float | None], _Draw], ...] = (
    ("Rewards of training rows", lambda point: point.chosen_reward, _rewards),
    ("Accuracy on training rows, 0 to 1", lambda point: point.accuracy, _accuracy),
    ("Speed, iterations per second", lambda point: point.it_s, _speed),
    ("Memory and swap, GB", lambda point: point.footprint_bytes or point.peak_bytes, _memory),
    ("Learning rate", lambda point: point.learning_rate, _rate),
    ("Gradient norm", lambda point: point.grad_norm, _norm),
)
