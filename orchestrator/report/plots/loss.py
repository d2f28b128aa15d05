"""The loss curve: train and validation loss by iteration, with restarts, spikes and rollbacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jobs.model.job import ProgressPoint, Validation
from orchestrator.formatting.text import counted
from orchestrator.report.analysis.curves import Floats
from orchestrator.report.analysis.phases import RECOVERY, SPIKE
from orchestrator.report.facts import Facts, Measurement
from orchestrator.report.plots import style
from orchestrator.report.plots.series import Curves, given_up, rollbacks
from orchestrator.report.plots.style import LIGHT, Theme

HEIGHT = 600  # points

_MOST_ERROR_BARS = 60
_MOST_FULL_LINES = 12


def loss_curve(
    facts: Facts,
    points: Sequence[ProgressPoint],
    validations: Sequence[Validation],
    *,
    every: Sequence[ProgressPoint] = (),
    theme: Theme = LIGHT,
) -> Figure | None:
    """Draw train and validation loss by iteration; None if no finite loss was measured.

    Args:
        facts: of the job.
        points: the progress reports that led to the present weights, by iteration.
        validations: the validations that led to the present weights, by iteration.
        every: all progress reports, in the order of their arrival; stretches that a rollback gave up are drawn too.
        theme: colours.
    """
    curves, lost = Curves.of(points, validations), given_up(facts, points, every)
    losses = np.concatenate([curves.every_loss, *(y for _, y in lost)])
    if not np.isfinite(losses).any():
        return None
    figure = style.figure_of(HEIGHT, facts.job.name, theme)
    axes = figure.add_subplot()
    xs = np.concatenate([curves.every_x, *(x for x, _ in lost)])
    style.frame(axes, max(facts.progress.iterations_done, float(xs.max())), theme)
    style.scale_y(axes, losses, curves.bars)
    title: dict[str, Any] = {"size": style.TEXT, "color": theme.grey, "parse_math": False}
    axes.set_title(f"{subtitle(facts)}\nloss in {facts.loss_unit}, by iteration", loc="left", **title)
    _draw_train(axes, facts, curves, lost, theme)
    _draw_validation(axes, facts, curves, theme)
    _draw_not_finite(axes, curves.every_x, curves.every_loss, theme)
    _draw_rollbacks(axes, facts, theme)
    _draw_restarts(axes, facts, theme)
    style.legend(figure, theme, loc="outside lower left")
    return figure


def subtitle(facts: Facts) -> str:
    """Return job, verdict, progress and model in short lines."""
    job, settings, progress, ruling = facts.job, facts.settings, facts.progress, facts.findings.ruling
    lines = [f"job {job.id}, {job.status}{f', {ruling.verdict.code}' if ruling else ''}"]
    lines += [f"{progress.iterations_done:,} of {progress.iterations_asked:,} iterations"]
    if settings is not None:
        kind = settings.fine_tune_type if settings.rank is None else f"{settings.fine_tune_type} rank {settings.rank}"
        lines += [f"{style.short(settings.model.rstrip('/').rsplit('/', 1)[-1], 36)}, {kind}"]
    return "\n".join(lines)


def _draw_train(axes: Axes, facts: Facts, curves: Curves, lost: Sequence[tuple[Floats, Floats]], theme: Theme) -> None:
    if np.isfinite(curves.train).any():
        style.noisy_line(axes, curves.x, curves.train, theme, name="train loss", median=True)
    for rank, (x, y) in enumerate(lost):
        label = None if rank else "train loss, given up"
        style.line(axes, x, y, color=theme.grey, linewidth=0.9, alpha=0.8, label=label, zorder=3)
    spikes = [phase for phase in facts.findings.phases if phase.name in (SPIKE, RECOVERY)]
    for rank, phase in enumerate(spikes):
        look: dict[str, Any] = {"color": theme.validation, "alpha": 0.09, "linewidth": 0, "zorder": 1}
        axes.axvspan(phase.first, phase.last, label=None if rank else "spike and recovery", **look)


def _draw_validation(axes: Axes, facts: Facts, curves: Curves, theme: Theme) -> None:
    x, y, error = curves.validated, curves.losses, curves.half
    finite = np.isfinite(y) & np.isfinite(error)
    if finite.any():
        # the line keeps its gaps, because nothing was measured there
        style.line(axes, x, np.where(finite, y, np.nan), color=theme.validation, linewidth=1.0, zorder=4)
        x, y, error = x[finite], y[finite], error[finite]
        low = np.maximum(y - error, axes.get_ylim()[0])  # a logarithmic axis has no zero
        label = "validation loss, 95 % interval"
        if len(x) > _MOST_ERROR_BARS:  # bars would touch each other
            axes.fill_between(x, low, y + error, color=theme.validation, alpha=0.22, linewidth=0, zorder=3)
            axes.plot([], [], color=theme.validation, linewidth=1.5, label=label)
        else:
            bars: dict[str, Any] = {"ecolor": theme.validation, "elinewidth": 1.1, "capsize": 2.5, "zorder": 5}
            axes.errorbar(x, y, yerr=(y - low, error), fmt="none", **bars)
            axes.plot(x, y, "s", color=theme.validation, markersize=4.5, zorder=5, label=label)
    best, final = facts.validation.best, facts.validation.final
    if best is not None:
        axes.axhline(best.loss, color=theme.validation, linewidth=0.9, linestyle=(0, (1, 2)), zorder=2)
        look: dict[str, Any] = {
            "color": theme.validation,
            "markersize": 15,
            "markeredgecolor": theme.paper,
            "zorder": 7,
        }
        axes.plot([best.iteration], [best.loss], "*", label=_value_label("best", best), **look)
    if final is not None and math.isfinite(final.loss) and (best is None or final.iteration != best.iteration):
        axes.plot([], [], " ", label=_value_label("final", final))


def _value_label(name: str, found: Measurement) -> str:
    known = found.low is not None and found.high is not None
    interval = f" ({found.low:.3g} to {found.high:.3g})" if known else ""
    return f"{name} {found.loss:.4g}{interval} at {found.iteration:,}"


def _draw_not_finite(axes: Axes, x: Floats, y: Floats, theme: Theme) -> None:
    bad = x[~np.isfinite(y)]
    if len(bad):
        look: dict[str, Any] = {
            "color": theme.bad,
            "markersize": 6,
            "clip_on": False,
            "label": f"not finite: {len(bad):,}",
        }
        axes.plot(bad, np.full(len(bad), 0.985), "x", transform=axes.get_xaxis_transform(), **look)


def _draw_rollbacks(axes: Axes, facts: Facts, theme: Theme) -> None:
    """Draw an arrow for each rollback, from its iteration to the one it went back to."""
    top = axes.get_xaxis_transform()
    arrow: dict[str, Any] = {"arrowstyle": "-|>", "color": theme.rollback, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    for row, (place, back, _) in enumerate(rollbacks(facts)):
        height = 0.965 - 0.045 * (row % 6)
        ends: dict[str, Any] = {"xy": (back, height), "xytext": (place, height), "xycoords": top, "textcoords": top}
        axes.annotate("", **ends, arrowprops=arrow, zorder=6)
        axes.plot([place], [height], "o", color=theme.rollback, markersize=4.5, transform=top, zorder=6)
        axes.plot([], [], "<-", color=theme.rollback, label=None if row else "rollback")


def _draw_restarts(axes: Axes, facts: Facts, theme: Theme) -> None:
    places = [attempt.first_iteration for attempt in facts.restarts if attempt.first_iteration is not None]
    low = 0.0 if len(places) <= _MOST_FULL_LINES else 0.93  # many full lines would hide the curves
    for rank, place in enumerate(places):
        label = None if rank else counted(len(places), "restart")
        axes.axvline(place, ymin=low, color=theme.restart, linewidth=1.0, linestyle=(0, (4, 3)), label=label, zorder=2)
