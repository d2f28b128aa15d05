"""The loss curve: train and validation loss by iteration, with restarts, spikes and rollbacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jobs.model.job import ProgressPoint, Validation
from orchestrator.report.analysis.curves import Floats, apart, outline, running_median
from orchestrator.report.analysis.phases import RECOVERY, SPIKE
from orchestrator.report.facts import Facts, Measurement
from orchestrator.report.plots import style
from orchestrator.report.plots.series import Curves, given_up, rollbacks
from orchestrator.report.plots.style import BUCKETS, FEWEST_TO_SMOOTH, LIGHT, Theme

WIDTH, HEIGHT = 1600, 900  # pixels

_MOST_ERROR_BARS = 60
_MOST_NUMBERED_RESTARTS = 12


class _Label(NamedTuple):
    """A label in the right margin, at the height of its value."""

    value: float
    text: str
    colour: str


def loss_curve(
    facts: Facts,
    points: Sequence[ProgressPoint],
    validations: Sequence[Validation],
    *,
    every: Sequence[ProgressPoint] = (),
    theme: Theme = LIGHT,
) -> bytes:
    """Draw train and validation loss by iteration.

    Args:
        facts: of the job.
        points: the progress reports that led to the present weights, by iteration.
        validations: the validations that led to the present weights, by iteration.
        every: all progress reports, in the order of their arrival; stretches that a rollback gave up are drawn too.
        theme: colours.

    Returns:
        a PNG of WIDTH x HEIGHT pixels.
    """
    figure = style.figure_of(WIDTH, HEIGHT, theme)
    axes = figure.add_axes((0.075, 0.105, 0.7, 0.68))
    curves, lost = Curves.of(points, validations), given_up(facts, points, every)
    style.frame(axes, theme)
    style.title(figure, facts.job.name, subtitle(facts), theme)
    axes.set_xlabel("iteration", size=10, color=theme.ink)
    if not len(curves.every_x):
        style.say(axes, "no reports yet", theme)
        axes.set_xticks([])
        return style.png(figure)
    draw(axes, facts, curves, lost, theme)
    draw_restarts(axes, facts, theme)
    _draw_margin(axes, facts, theme)
    legend(figure, axes, theme, (0.012, 0.885), WIDTH * 0.99)
    return style.png(figure)


def subtitle(facts: Facts) -> str:
    """Return job, verdict, model and progress in one line."""
    job, settings, progress = facts.job, facts.settings, facts.progress
    trained = f"{style.short(settings.model.rstrip('/').rsplit('/', 1)[-1], 40)}, " if settings else ""
    kind = "" if settings is None else settings.fine_tune_type
    rank = "" if settings is None or settings.rank is None else f" rank {settings.rank}"
    done = f"{progress.iterations_done:,} of {progress.iterations_asked:,} iterations"
    ruling = facts.findings.ruling
    verdict = f" · {ruling.verdict.code}" if ruling else ""
    return f"job {job.id}, {job.status}{verdict} · {trained}{kind}{rank}{', ' if settings else ''}{done}"


def draw(axes: Axes, facts: Facts, curves: Curves, lost: Sequence[tuple[Floats, Floats]], theme: Theme) -> None:
    """Draw the curves, the stretches that were given up, spikes and rollbacks."""
    xs = [curves.every_x, *(x for x, _ in lost)]
    losses = np.concatenate([curves.every_loss, *(y for _, y in lost)])
    style.scale_x(axes, max(facts.progress.iterations_done, *(float(x.max()) for x in xs if len(x))))
    if not np.isfinite(losses).any():
        style.say(axes, "no finite loss was reported", theme)
    else:
        style.scale_y(axes, losses, curves.bars, "loss, nats per token", theme)
    _shade_spikes(axes, facts, theme)
    _draw_lost(axes, lost, theme)
    _draw_train(axes, curves.x, curves.train, theme)
    _draw_validation(axes, curves, theme)
    _draw_not_finite(axes, curves.every_x, curves.every_loss, theme)
    _draw_rollbacks(axes, facts, theme)
    best = facts.validation.best
    if best is not None:
        axes.axhline(best.loss, color=theme.validation, linewidth=0.9, linestyle=(0, (1, 2)), zorder=2)
        axes.plot(
            [best.iteration],
            [best.loss],
            "*",
            color=theme.validation,
            markersize=15,
            markeredgecolor=theme.paper,
            zorder=7,
        )


def _shade_spikes(axes: Axes, facts: Facts, theme: Theme) -> None:
    label: str | None = "spike and recovery"
    for phase in facts.findings.phases:
        if phase.name in (SPIKE, RECOVERY):
            axes.axvspan(
                phase.first, phase.last, color=theme.validation, alpha=0.09, linewidth=0, label=label, zorder=1
            )
            label = None


def _draw_lost(axes: Axes, lost: Sequence[tuple[Floats, Floats]], theme: Theme) -> None:
    label: str | None = "train loss, given up"
    for x, y in lost:
        finite = np.where(np.isfinite(y), y, np.nan)
        axes.plot(*outline(x, finite, BUCKETS), color=theme.grey, linewidth=0.9, alpha=0.8, label=label, zorder=3)
        label = None


def _draw_rollbacks(axes: Axes, facts: Facts, theme: Theme) -> None:
    """Draw an arrow for each rollback, from its iteration to the one it went back to."""
    top = axes.get_xaxis_transform()
    for row, (place, back, _) in enumerate(rollbacks(facts)):
        height = 0.965 - 0.045 * (row % 6)
        axes.annotate(
            "",
            xy=(back, height),
            xytext=(place, height),
            xycoords=top,
            textcoords=top,
            arrowprops={"arrowstyle": "-|>", "color": theme.rollback, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0},
            zorder=6,
        )
        axes.plot([place], [height], "o", color=theme.rollback, markersize=4.5, transform=top, zorder=6)
        axes.plot([], [], "<-", color=theme.rollback, label=None if row else "rollback")


def _draw_train(axes: Axes, x: Floats, y: Floats, theme: Theme) -> None:
    finite = np.where(np.isfinite(y), y, np.nan)
    if np.isnan(finite).all():
        return
    if len(x) < FEWEST_TO_SMOOTH:
        axes.plot(x, finite, color=theme.train, linewidth=1.8, marker="o", markersize=4, label="train loss")
        return
    axes.plot(*outline(x, finite, BUCKETS), color=theme.raw, linewidth=0.7, label="train loss, each report")
    window = max(5, len(x) // 60) // 2 * 2 + 1
    level = np.full(len(y), np.nan)
    # the mean would rise before a spike, the median does not
    level[np.isfinite(y)] = running_median(y[np.isfinite(y)], window)
    label = f"train loss, median of {window} reports"
    axes.plot(*outline(x, level, BUCKETS), color=theme.train, linewidth=1.9, label=label)


def _draw_validation(axes: Axes, curves: Curves, theme: Theme) -> None:
    x, y, error = curves.validated, curves.losses, curves.half
    finite = np.isfinite(y) & np.isfinite(error)
    if not finite.any():
        return
    # the line keeps its gaps, because nothing was measured there
    axes.plot(*outline(x, np.where(finite, y, np.nan), BUCKETS), color=theme.validation, linewidth=1.0, zorder=4)
    x, y, error = x[finite], y[finite], error[finite]
    low = _above(axes, y - error)
    label = "validation loss, 95 % interval"
    if len(x) > _MOST_ERROR_BARS:
        # bars would touch each other
        axes.fill_between(x, low, y + error, color=theme.validation, alpha=0.22, linewidth=0, zorder=3)
        axes.plot([], [], color=theme.validation, linewidth=1.5, label=label)
        return
    bars = (y - low, error)
    axes.errorbar(x, y, yerr=bars, fmt="none", ecolor=theme.validation, elinewidth=1.1, capsize=2.5, zorder=5)
    axes.plot(x, y, "s", color=theme.validation, markersize=4.5, zorder=5, label=label)


def _above(axes: Axes, values: Floats) -> Floats:
    """Return the values, raised to the lower end of the axis, because a logarithmic axis has no zero."""
    return np.maximum(values, axes.get_ylim()[0])


def _draw_not_finite(axes: Axes, x: Floats, y: Floats, theme: Theme) -> None:
    bad = x[~np.isfinite(y)]
    if not len(bad):
        return
    marks, _ = outline(bad, np.zeros(len(bad)), 60)
    label = f"not finite: {len(bad):,}"
    top = axes.get_xaxis_transform()
    axes.plot(
        marks, np.full(len(marks), 0.985), "x", color=theme.bad, markersize=6, transform=top, clip_on=False, label=label
    )


def draw_restarts(axes: Axes, facts: Facts, theme: Theme) -> None:
    """Mark the start of each attempt, with its number if there is space."""
    marks = [(attempt.number, attempt.first_iteration) for attempt in facts.restarts]
    known = [(number, place) for number, place in marks if place is not None]
    numbered = len(known) <= _MOST_NUMBERED_RESTARTS
    for rank, (_, place) in enumerate(known):
        label = None if rank else ("restart (attempt above)" if numbered else f"restarts: {len(known):,}")
        # many full lines would hide the curves
        low = 0.0 if numbered else 0.93
        axes.axvline(place, ymin=low, color=theme.restart, linewidth=1.0, linestyle=(0, (4, 3)), label=label, zorder=2)
    if numbered:
        _number_restarts(axes, known, theme)


def _number_restarts(axes: Axes, known: Sequence[tuple[int, int]], theme: Theme) -> None:
    low, high = axes.get_xlim()
    top = axes.get_xaxis_transform()
    places = apart([float(place) for _, place in known], (high - low) * 0.025, low, high)
    for (number, _), place in zip(known, places, strict=True):
        axes.text(place, 1.012, f"{number}", transform=top, size=9, color=theme.restart, ha="center")


def _draw_margin(axes: Axes, facts: Facts, theme: Theme) -> None:
    """Label the best and the final validation in the right margin."""
    labels = _labels(facts, theme)
    if not labels:
        return
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [float(to_axes.transform((1.0, label.value))[1]) for label in labels]
    for label, wanted, placed in zip(labels, heights, apart(heights, 0.155, 0.06, 0.94), strict=True):
        margin_label(axes, label.text, label.colour, wanted, placed)


def margin_label(axes: Axes, text: str, colour: str, wanted: float, placed: float) -> None:
    """Write a label into the right margin, with a line to its value; heights are shares of the axes."""
    axes.annotate(
        text,
        xy=(1.0, wanted),
        xytext=(1.035, placed),
        xycoords="axes fraction",
        textcoords="axes fraction",
        size=9.5,
        color=colour,
        va="center",
        linespacing=1.35,
        annotation_clip=False,
        parse_math=False,
        arrowprops={
            "arrowstyle": "-",
            "color": colour,
            "linewidth": 0.8,
            "relpos": (0.0, 0.5),
            "shrinkA": 1,
            "shrinkB": 0,
        },
    )


def _labels(facts: Facts, theme: Theme) -> list[_Label]:
    best, final, train = facts.validation.best, facts.validation.final, facts.train_loss.last
    labels = []
    if best is not None:
        same = final is not None and final.iteration == best.iteration
        title = "★ best and final validation" if same else "★ best validation"
        labels.append(_Label(best.loss, _label_text(title, best), theme.validation))
    if final is not None and math.isfinite(final.loss) and (best is None or final.iteration != best.iteration):
        labels.append(_Label(final.loss, _label_text("final validation", final), theme.validation))
    if train is not None and math.isfinite(train.loss):
        labels.append(_Label(train.loss, f"last train report\n{train.loss:.4g} at {train.iteration:,}", theme.train))
    return labels


def _label_text(title: str, found: Measurement) -> str:
    known = found.low is not None and found.high is not None
    interval = f" ({found.low:.3g} to {found.high:.3g})" if known else ""
    return f"{title}\n{found.loss:.4g}{interval}\nat {found.iteration:,}"


def legend(
    figure: Figure, axes: Axes, theme: Theme, anchor: tuple[float, float], right: float, *, size: float = 9
) -> None:
    """Put the legend above the axes, in as few rows as the width allows.

    Args:
        figure: of the axes.
        axes: with the curves.
        theme: colours.
        anchor: the upper left corner, in shares of the figure.
        right: the limit on the right, in pixels.
        size: of the letters, in points.
    """
    handles, names = axes.get_legend_handles_labels()
    for columns in (6, 5, 4, 3, 2):
        made = figure.legend(
            handles,
            names,
            loc="upper left",
            bbox_to_anchor=anchor,
            ncols=columns,
            frameon=False,
            fontsize=size,
            labelcolor=theme.ink,
            handlelength=1.8,
            columnspacing=1.6,
        )
        for text in made.get_texts():
            text.set_parse_math(False)  # a job's name may contain a dollar sign
        with style.any_script():
            if made.get_window_extent().x1 < right or columns == 2:
                return
        made.remove()
