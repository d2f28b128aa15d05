"""The pictures of a report; the only file that imports matplotlib. Values in, PNG bytes out.

Figures are built without pyplot: no global state, no window system, nothing to close.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from jobs.job import ProgressPoint, Validation
from orchestrator.report.curves import Floats, apart, outline, smoothed, wants_log
from orchestrator.report.facts import Facts, Measurement

WIDTH, HEIGHT, DPI = 1600, 900, 160  # pixels, pixels, pixels per inch

# Okabe and Ito's palette: told apart with every common colour blindness, and by shape and lightness besides.
_INK, _GREY, _FAINT = "#222222", "#666666", "#D9D9D9"
_RAW, _TRAIN, _VALIDATION, _RESTART, _BAD = "#9CCBEB", "#0072B2", "#C24E00", "#7A3E76", "#000000"

_BUCKETS = 700
_FEWEST_TO_SMOOTH = 30
_MOST_ERROR_BARS = 60
_MOST_NUMBERED_RESTARTS = 12


class _Label(NamedTuple):
    """A label in the right margin."""

    value: float
    text: str
    colour: str


def loss_curve(facts: Facts, points: Sequence[ProgressPoint], validations: Sequence[Validation]) -> bytes:
    """Draw train and validation loss by iteration.

    Args:
        facts: the job's facts; name the picture, its restarts, its best and final validation.
        points: the progress reports that count, by iteration.
        validations: the validations that count, by iteration.

    Returns:
        a PNG of WIDTH x HEIGHT pixels.
    """
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0.075, 0.105, 0.7, 0.68))
    x = np.array([point.iteration for point in points], dtype=float)
    train = np.array([point.train_loss for point in points], dtype=float)
    validated = np.array([found.iteration for found in validations], dtype=float)
    losses = np.array([found.loss for found in validations], dtype=float)
    error = np.array([found.standard_error or 0.0 for found in validations], dtype=float)
    every_x, every_loss = np.concatenate((x, validated)), np.concatenate((train, losses))
    _frame(figure, axes, facts)
    if not len(every_x):
        _say(axes, "no reports yet")
        axes.set_xticks([])
        return _png(figure)
    _scale_x(axes, max(facts.progress.iterations_done, every_x.max()))
    if not np.isfinite(every_loss).any():
        _say(axes, "no finite loss was reported")
    else:
        _scale_y(axes, every_loss, np.concatenate((losses - error, losses + error)))
    _draw_train(axes, x, train)
    _draw_validation(axes, validated, losses, error)
    _draw_not_finite(axes, every_x, every_loss)
    _draw_restarts(axes, facts)
    _draw_margin(axes, facts)
    _legend(figure, axes)
    return _png(figure)


def _frame(figure: Figure, axes: Axes, facts: Facts) -> None:
    job, settings, progress = facts.job, facts.settings, facts.progress
    trained = f"{_short(settings.model.rstrip('/').rsplit('/', 1)[-1], 40)}, " if settings else ""
    kind = "" if settings is None else settings.fine_tune_type
    rank = "" if settings is None or settings.rank is None else f" rank {settings.rank}"
    done = f"{progress.iterations_done:,} of {progress.iterations_asked:,} iterations"
    line = f"{trained}{kind}{rank}{', ' if settings else ''}{done}"
    # A name may hold a dollar sign; it is no formula.
    figure.text(0.02, 0.945, _short(job.name, 60), size=15, weight="bold", color=_INK, parse_math=False)
    figure.text(0.02, 0.9, f"job {job.id}, {job.status} · {line}", size=9.5, color=_GREY, parse_math=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_GREY)
    axes.tick_params(colors=_GREY, labelcolor=_INK, labelsize=9.5)
    axes.grid(visible=True, color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("iteration", size=10, color=_INK)


def _scale_x(axes: Axes, last: float) -> None:
    span = max(last, 1.0)
    axes.set_xlim(-0.015 * span, 1.015 * span)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _scale_y(axes: Axes, losses: Floats, bars: Floats) -> None:
    shown = np.concatenate((losses, bars))
    shown = shown[np.isfinite(shown)]
    low, high = float(shown.min()), float(shown.max())
    if wants_log(losses):
        # The foot of an error bar may lie below zero, where a logarithm has nothing.
        low = float(losses[np.isfinite(losses)].min())
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 2e3 else (1.0,)))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        room = (high / low) ** 0.06
        axes.set_ylim(low / room, high * room)
        axes.set_ylabel("loss, nats per token (log scale)", size=10, color=_INK)
        return
    room = max((high - low) * 0.07, abs(high) * 0.01, 1e-6)
    axes.set_ylim(max(0.0, low - room) if low >= 0 else low - room, high + room)
    axes.set_ylabel("loss, nats per token", size=10, color=_INK)


def _draw_train(axes: Axes, x: Floats, y: Floats) -> None:
    finite = np.where(np.isfinite(y), y, np.nan)
    if np.isnan(finite).all():
        return
    if len(x) < _FEWEST_TO_SMOOTH:
        axes.plot(x, finite, color=_TRAIN, linewidth=1.8, marker="o", markersize=4, label="train loss")
        return
    axes.plot(*outline(x, finite, _BUCKETS), color=_RAW, linewidth=0.7, label="train loss, each report")
    window = max(5, len(x) // 60) // 2 * 2 + 1
    mean = smoothed(y, window)
    label = f"train loss, mean of {window} reports"
    axes.plot(*outline(x, mean, _BUCKETS), color=_TRAIN, linewidth=1.9, label=label)


def _draw_validation(axes: Axes, x: Floats, y: Floats, error: Floats) -> None:
    finite = np.isfinite(y) & np.isfinite(error)
    if not finite.any():
        return
    # The line keeps its gaps: nothing was measured between two ends.
    axes.plot(*outline(x, np.where(finite, y, np.nan), _BUCKETS), color=_VALIDATION, linewidth=1.0, zorder=4)
    x, y, error = x[finite], y[finite], error[finite]
    low = _above(axes, y - error)
    label = "validation loss ± 1 standard error"
    if len(x) > _MOST_ERROR_BARS:
        # Bars that touch each other are a smear: a band says the same.
        axes.fill_between(x, low, y + error, color=_VALIDATION, alpha=0.22, linewidth=0, zorder=3)
        axes.plot([], [], color=_VALIDATION, linewidth=1.5, label=label)
        return
    bars = (y - low, error)
    axes.errorbar(x, y, yerr=bars, fmt="none", ecolor=_VALIDATION, elinewidth=1.1, capsize=2.5, zorder=5)
    axes.plot(x, y, "s", color=_VALIDATION, markersize=4.5, zorder=5, label=label)


def _above(axes: Axes, values: Floats) -> Floats:
    """Return the values, none below the axis: a logarithm has nothing there."""
    return np.maximum(values, axes.get_ylim()[0])


def _draw_not_finite(axes: Axes, x: Floats, y: Floats) -> None:
    bad = x[~np.isfinite(y)]
    if not len(bad):
        return
    marks, _ = outline(bad, np.zeros(len(bad)), 60)
    label = f"not finite: {len(bad):,}"
    top = axes.get_xaxis_transform()
    axes.plot(
        marks, np.full(len(marks), 0.985), "x", color=_BAD, markersize=6, transform=top, clip_on=False, label=label
    )


def _draw_restarts(axes: Axes, facts: Facts) -> None:
    marks = [(attempt.number, attempt.first_iteration) for attempt in facts.restarts]
    known = [(number, place) for number, place in marks if place is not None]
    numbered = len(known) <= _MOST_NUMBERED_RESTARTS
    for rank, (_, place) in enumerate(known):
        label = None if rank else ("restart (attempt above)" if numbered else f"restarts: {len(known):,}")
        # So many that full lines would hide the curves get a short mark at the top.
        low = 0.0 if numbered else 0.93
        axes.axvline(place, ymin=low, color=_RESTART, linewidth=1.0, linestyle=(0, (4, 3)), label=label, zorder=2)
    if numbered:
        _number_restarts(axes, known)


def _number_restarts(axes: Axes, known: Sequence[tuple[int, int]]) -> None:
    low, high = axes.get_xlim()
    top = axes.get_xaxis_transform()
    places = apart([float(place) for _, place in known], (high - low) * 0.025, low, high)
    for (number, _), place in zip(known, places, strict=True):
        axes.text(place, 1.012, f"{number}", transform=top, size=9, color=_RESTART, ha="center")


def _draw_margin(axes: Axes, facts: Facts) -> None:
    """Name the best and the final validation in the margin on the right, where no curve runs."""
    labels = _labels(facts)
    if not labels:
        return
    best = facts.validation.best
    if best is not None:
        axes.axhline(best.loss, color=_VALIDATION, linewidth=0.9, linestyle=(0, (1, 2)), zorder=2)
        axes.plot(
            [best.iteration], [best.loss], "*", color=_VALIDATION, markersize=15, markeredgecolor="white", zorder=7
        )
    to_axes = axes.transData + axes.transAxes.inverted()
    heights = [float(to_axes.transform((1.0, label.value))[1]) for label in labels]
    for label, wanted, placed in zip(labels, heights, apart(heights, 0.125, 0.04, 0.96), strict=True):
        axes.annotate(
            label.text,
            xy=(1.0, wanted),
            xytext=(1.035, placed),
            xycoords="axes fraction",
            textcoords="axes fraction",
            size=9.5,
            color=label.colour,
            va="center",
            linespacing=1.35,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": label.colour,
                "linewidth": 0.8,
                "relpos": (0.0, 0.5),
                "shrinkA": 1,
                "shrinkB": 0,
            },
        )


def _labels(facts: Facts) -> list[_Label]:
    best, final, train = facts.validation.best, facts.validation.final, facts.train_loss.last
    labels = []
    if best is not None:
        same = final is not None and final.iteration == best.iteration
        title = "★ best and final validation" if same else "★ best validation"
        labels.append(_Label(best.loss, _label_text(title, best), _VALIDATION))
    if final is not None and math.isfinite(final.loss) and (best is None or final.iteration != best.iteration):
        labels.append(_Label(final.loss, _label_text("final validation", final), _VALIDATION))
    if train is not None and math.isfinite(train.loss):
        labels.append(_Label(train.loss, f"last train report\n{train.loss:.4g} at {train.iteration:,}", _TRAIN))
    return labels


def _label_text(title: str, found: Measurement) -> str:
    error = "" if found.standard_error is None else f" ± {found.standard_error:.2g}"
    return f"{title}\n{found.loss:.4g}{error} at {found.iteration:,}"


def _legend(figure: Figure, axes: Axes) -> None:
    """Put the legend above the axes, where no curve runs, in as few rows as the width allows."""
    handles, names = axes.get_legend_handles_labels()
    for columns in (5, 4, 3, 2):
        legend = figure.legend(
            handles,
            names,
            loc="upper left",
            bbox_to_anchor=(0.012, 0.885),
            ncols=columns,
            frameon=False,
            fontsize=9,
            labelcolor=_INK,
            handlelength=1.8,
            columnspacing=1.6,
        )
        if legend.get_window_extent().x1 < WIDTH * 0.99 or columns == 2:
            return
        legend.remove()


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, size=16, color=_GREY, ha="center", va="center")
    axes.grid(visible=False)
    axes.set_yticks([])


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A job may be named in a script the font does not have; boxes in the title are no reason to complain.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
