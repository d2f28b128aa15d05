"""Four panels of one run: loss, speed, memory and swap, learning rate and gradient norm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from jobs.model.job import ProgressPoint, Validation
from orchestrator.report.analysis.curves import Floats, outline, smoothed
from orchestrator.report.facts import Facts
from orchestrator.report.plots import loss, style
from orchestrator.report.plots.series import Curves, column, given_up
from orchestrator.report.plots.style import BUCKETS, FEWEST_TO_SMOOTH, LIGHT, Theme

WIDTH, HEIGHT = 1800, 1340  # pixels

_LEFT, _RIGHT, _LOW, _HIGH, _WIDE, _TALL = 0.065, 0.56, 0.055, 0.52, 0.375, 0.3
"""Positions and sizes of the panels, in shares of the figure."""

_GB = 1e9
_FAR = 3.0


def analysis(
    facts: Facts,
    points: Sequence[ProgressPoint],
    validations: Sequence[Validation],
    *,
    every: Sequence[ProgressPoint] = (),
    theme: Theme = LIGHT,
) -> bytes:
    """Draw the four panels.

    Args:
        facts: of the job.
        points: the progress reports that led to the present weights, by iteration.
        validations: the validations that led to the present weights, by iteration.
        every: all progress reports, in the order of their arrival.
        theme: colours.

    Returns:
        a PNG of WIDTH x HEIGHT pixels.
    """
    figure = style.figure_of(WIDTH, HEIGHT, theme)
    style.title(figure, facts.job.name, loss.subtitle(facts), theme, height=0.965, step=0.028)
    x = column(points, lambda point: point.iteration)
    last = max(facts.progress.iterations_done, float(x.max()) if len(x) else 0.0)
    _loss_panel(figure, facts, Curves.of(points, validations), given_up(facts, points, every), theme)
    _speed_panel(figure, x, points, last, theme)
    _memory_panel(figure, x, points, last, theme)
    _rate_panel(figure, x, points, last, theme)
    return style.png(figure)


def _panel(figure: Figure, place: tuple[float, float], name: str, theme: Theme) -> Axes:
    axes = figure.add_axes((*place, _WIDE, _TALL))
    style.frame(axes, theme)
    figure.text(place[0], place[1] + _TALL + 0.072, name, size=11, weight="bold", color=theme.ink)
    axes.set_xlabel("iteration", size=9.5, color=theme.ink)
    return axes


def _legend(figure: Figure, axes: Axes, place: tuple[float, float], theme: Theme) -> None:
    anchor = (place[0] - 0.008, place[1] + _TALL + 0.068)
    loss.legend(figure, axes, theme, anchor, (place[0] + _WIDE + 0.06) * WIDTH, size=8)


def _loss_panel(
    figure: Figure, facts: Facts, curves: Curves, lost: Sequence[tuple[Floats, Floats]], theme: Theme
) -> None:
    place = (_LEFT, _HIGH)
    axes = _panel(figure, place, "Loss", theme)
    if not len(curves.every_x):
        style.say(axes, "no reports yet", theme)
        return
    loss.draw(axes, facts, curves, lost, theme)
    _legend(figure, axes, place, theme)


def _speed_panel(figure: Figure, x: Floats, points: Sequence[ProgressPoint], last: float, theme: Theme) -> None:
    place = (_RIGHT, _HIGH)
    axes = _panel(figure, place, "Speed", theme)
    speed = column(points, lambda point: point.it_s)
    if not np.isfinite(speed).any():
        style.say(axes, "speed: not measured", theme)
        return
    style.scale_x(axes, last)
    style.scale_y(axes, np.append(speed, 0.0), np.empty(0), "iterations per second", theme)
    _noisy(axes, x, speed, "each report", theme)
    _legend(figure, axes, place, theme)


def _noisy(axes: Axes, x: Floats, y: Floats, label: str, theme: Theme) -> None:
    """Draw the values of a noisy series in a faint colour and their mean in a strong one, if there are enough."""
    if len(x) < FEWEST_TO_SMOOTH:
        axes.plot(x, y, color=theme.train, linewidth=1.6, marker="o", markersize=3.5, label=label)
        return
    axes.plot(*outline(x, y, BUCKETS), color=theme.raw, linewidth=0.7, label=label)
    window = _window(x)
    mean = smoothed(y, window)
    axes.plot(*outline(x, mean, BUCKETS), color=theme.train, linewidth=1.8, label=f"mean of {window} reports")


def _memory_panel(figure: Figure, x: Floats, points: Sequence[ProgressPoint], last: float, theme: Theme) -> None:
    place = (_LEFT, _LOW)
    axes = _panel(figure, place, "Memory and swap", theme)
    series = [
        ("trainer", column(points, lambda point: point.footprint_bytes) / _GB, theme.train, "-"),
        ("MLX, peak", column(points, lambda point: point.peak_bytes) / _GB, theme.restart, "--"),
        ("MLX, active", column(points, lambda point: point.active_bytes) / _GB, theme.rollback, "-."),
        ("swap of the machine", column(points, lambda point: point.swap_bytes) / _GB, theme.validation, ":"),
        ("limit", column(points, lambda point: point.limit_bytes) / _GB, theme.grey, (0, (1, 1))),
    ]
    known = [one for one in series if np.isfinite(one[1]).any()]
    if not known:
        style.say(axes, "memory: not measured", theme)
        return
    style.scale_x(axes, last)
    highest = max((float(np.nanmax(values)) for name, values, _, _ in known if name != "limit"), default=0.0)
    for name, values, colour, line in known:
        if name == "limit":
            limit = float(np.nanmax(values))
            if limit > _FAR * highest > 0:
                axes.plot([], [], " ", label=f"limit: {limit:,.3g}")  # a line far above would flatten all others
                continue
            highest = max(highest, limit)
        axes.plot(*outline(x, values, BUCKETS), color=colour, linestyle=line, linewidth=1.6, label=name)
    axes.set_ylim(0, max(highest * 1.07, 1e-6))
    axes.set_ylabel("GB", size=10, color=theme.ink)
    _legend(figure, axes, place, theme)


def _rate_panel(figure: Figure, x: Floats, points: Sequence[ProgressPoint], last: float, theme: Theme) -> None:
    place = (_RIGHT, _LOW)
    axes = _panel(figure, place, "Learning rate and gradient norm", theme)
    rate, norm = column(points, lambda point: point.learning_rate), column(points, lambda point: point.grad_norm)
    style.scale_x(axes, last)
    known = np.isfinite(rate)
    if known.any():
        axes.plot(
            *outline(x[known], rate[known], BUCKETS), color=theme.train, linewidth=1.8, label="learning rate (left)"
        )
        axes.set_ylim(0, max(float(rate[known].max()) * 1.07, 1e-12))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axes.set_ylabel("learning rate", size=10, color=theme.ink)
    else:
        axes.set_yticks([])
        axes.plot([], [], " ", label="learning rate: not measured")
    measured = np.isfinite(norm)
    if measured.any():
        _draw_norm(axes, x[measured], norm[measured], theme)
    else:
        axes.plot([], [], " ", label="gradient norm: not measured")
    _legend(figure, axes, place, theme)


def _draw_norm(axes: Axes, x: Floats, norm: Floats, theme: Theme) -> None:
    """Draw the gradient norm on its own axis on the right."""
    other = axes.twinx()
    assert isinstance(other, Axes)
    style.frame(other, theme)
    other.grid(visible=False)
    other.spines["right"].set_visible(True)
    other.spines["right"].set_color(theme.grey)
    style.scale_y(other, norm, np.empty(0), "gradient norm", theme)
    faint = 0.35 if len(x) >= FEWEST_TO_SMOOTH else 1.0
    other.plot(*outline(x, norm, BUCKETS), color=theme.validation, linewidth=0.7, alpha=faint)
    label = "gradient norm (right)"
    if faint < 1.0:
        other.plot(*outline(x, smoothed(norm, _window(x)), BUCKETS), color=theme.validation, linewidth=1.6)
        label = "gradient norm (right), and its mean"
    axes.plot([], [], color=theme.validation, linewidth=1.5, label=label)
    axes.set_zorder(other.get_zorder() + 1)  # the learning rate stays visible
    axes.patch.set_visible(False)


def _window(x: Floats) -> int:
    """Return the number of reports to smooth over."""
    return max(5, len(x) // 60) // 2 * 2 + 1
