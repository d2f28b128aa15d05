"""Several runs in one picture, by iteration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from orchestrator.report.analysis.curves import smoothed
from orchestrator.report.plots import style
from orchestrator.report.plots.series import Curves
from orchestrator.report.plots.style import LIGHT, Theme

_MARKERS = "osD^vP"


def overlay(runs: Sequence[tuple[str, Curves]], *, unit: str, theme: Theme = LIGHT) -> Figure:
    """Draw the curves of several runs, each with its name, by iteration; `unit` is that of the losses."""
    figure = style.figure_of(480 + 20 * len(runs), "Loss by iteration", theme)
    axes = figure.add_subplot()
    style.frame(
        axes, max((float(curves.every_x.max()) for _, curves in runs if len(curves.every_x)), default=1.0), theme
    )
    losses = np.concatenate([curves.every_loss for _, curves in runs])
    if np.isfinite(losses).any():
        style.scale_y(axes, losses, np.empty(0))
    subtitle = f"loss in {unit}\nstrong: validation; faint: train, smoothed"
    axes.set_title(subtitle, loc="left", size=style.TEXT, color=theme.grey)
    for place, (name, curves) in enumerate(runs):
        colour, marker = theme.others[place % len(theme.others)], _MARKERS[place % len(_MARKERS)]
        train = smoothed(curves.train, len(curves.x) // 60 * 2 + 5)
        style.line(axes, curves.x, train, color=colour, linewidth=1.2, alpha=0.45)
        finite = curves.losses[np.isfinite(curves.losses)]
        end = f": {finite[-1]:.4g} at the end" if len(finite) else ""
        look: dict[str, Any] = {"marker": marker, "markersize": 5, "markevery": max(1, len(curves.validated) // 12)}
        label = f"{style.short(name, 32)}{end}"
        style.line(axes, curves.validated, curves.losses, color=colour, linewidth=1.9, label=label, **look)
    style.legend(figure, theme, loc="outside lower left")
    return figure
