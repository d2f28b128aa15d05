"""Several runs in one picture, by iteration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from orchestrator.report.analysis.curves import apart, outline, smoothed
from orchestrator.report.plots import loss, style
from orchestrator.report.plots.series import Curves
from orchestrator.report.plots.style import BUCKETS, FEWEST_TO_SMOOTH, LIGHT, Theme

WIDTH, HEIGHT = 1600, 900  # pixels

_MARKERS = "osD^vP"


def overlay(runs: Sequence[tuple[str, Curves]], *, theme: Theme = LIGHT) -> bytes:
    """Draw the curves of several runs by iteration.

    Args:
        runs: name and curves of each.
        theme: colours.

    Returns:
        a PNG of WIDTH x HEIGHT pixels.
    """
    figure = style.figure_of(WIDTH, HEIGHT, theme)
    axes = figure.add_axes((0.075, 0.105, 0.7, 0.7))
    style.frame(axes, theme)
    style.title(figure, "Loss by iteration", "strong: validation · faint: train, smoothed", theme)
    axes.set_xlabel("iteration", size=10, color=theme.ink)
    losses = np.concatenate([curves.every_loss for _, curves in runs])
    if not np.isfinite(losses).any():
        style.say(axes, "no finite loss was reported", theme)
        return style.png(figure)
    style.scale_x(axes, max(float(curves.every_x.max()) for _, curves in runs if len(curves.every_x)))
    style.scale_y(axes, losses, np.empty(0), "loss, nats per token", theme)
    ends = []
    for place, (name, curves) in enumerate(runs):
        colour, marker = theme.others[place % len(theme.others)], _MARKERS[place % len(_MARKERS)]
        train = (
            curves.train if len(curves.x) < FEWEST_TO_SMOOTH else smoothed(curves.train, len(curves.x) // 60 * 2 + 5)
        )
        train = np.where(np.isfinite(train), train, np.nan)
        axes.plot(*outline(curves.x, train, BUCKETS), color=colour, linewidth=1.2, alpha=0.45)
        shown = np.where(np.isfinite(curves.losses), curves.losses, np.nan)
        every = max(1, len(shown) // 12)
        axes.plot(
            curves.validated,
            shown,
            color=colour,
            linewidth=1.9,
            marker=marker,
            markersize=5,
            markevery=every,
            label=style.short(name, 34),
        )
        finite = shown[np.isfinite(shown)] if np.isfinite(shown).any() else train[np.isfinite(train)]
        if len(finite):
            ends.append((float(finite[-1]), f"{style.short(name, 22)}\n{finite[-1]:.4g} at the end", colour))
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [float(to_axes.transform((1.0, value))[1]) for value, _, _ in ends]
    for (_, text, colour), wanted, placed in zip(ends, heights, apart(heights, 0.11, 0.04, 0.96), strict=True):
        loss.margin_label(axes, text, colour, wanted, placed)
    loss.legend(figure, axes, theme, (0.012, 0.885), WIDTH * 0.99)
    return style.png(figure)
