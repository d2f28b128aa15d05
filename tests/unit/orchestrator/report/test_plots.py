"""The pictures of a report, and the arithmetic behind them."""

from __future__ import annotations

import dataclasses
import math
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from jobs.model.job import ProgressPoint, Validation
from orchestrator.report.analysis.curves import outline, running_median, smoothed, wants_log
from orchestrator.report.collect import collect
from orchestrator.report.facts import Facts
from orchestrator.report.plots import DARK, LIGHT, Theme, analysis, loss_curve, overlay, png
from orchestrator.report.plots.series import Curves, given_up, rollbacks
from tests.unit.orchestrator.report_runs import START, TWO_RESTARTS, Run, train_loss
from tests.unit.orchestrator.series_runs import rolled_back


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """The facts of a run with two restarts."""
    run = Run(tmp_path_factory.mktemp("home"), lq={"name": "costs $5 | 学習"})
    with run.store:
        run.play(*TWO_RESTARTS)
        return collect(run.store, run.id, now=START + 405)


def _points(losses: Sequence[float]) -> list[ProgressPoint]:
    return [
        ProgressPoint(
            attempt=1,
            iteration=iteration,
            time=START + iteration,
            train_loss=loss,
            learning_rate=None,
            it_s=None,
            tok_s=None,
            tokens=None,
            active_bytes=None,
            cache_bytes=None,
            peak_bytes=None,
            footprint_bytes=None,
        )
        for iteration, loss in enumerate(losses, start=1)
    ]


def _validations(losses: Sequence[float]) -> list[Validation]:
    return [
        Validation(
            attempt=1,
            kind="validation",
            iteration=100 * number,
            time=START,
            loss=loss,
            standard_error=None if number % 3 == 0 else 0.05,
            examples=53,
            seconds=1.0,
            row_losses=None,
        )
        for number, loss in enumerate(losses)
    ]


PHONE = 390
"""CSS pixels."""


def _assert_readable(figure: Figure | None) -> None:
    """Check that a picture is portrait, and that no letter is smaller than 12 pixels on a phone or cut off."""
    assert figure is not None
    drawn = png(figure)
    assert drawn.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", drawn[16:24])
    assert width < height
    texts = [text for text in figure.findobj(Text) if text.get_text().strip()]
    pixels = [float(text.get_fontsize()) * figure.dpi / 72 * PHONE / width for text in texts if text.get_visible()]
    assert min(pixels) >= 12
    ticks = {text for axes in figure.axes for text in (*axes.get_xticklabels(), *axes.get_yticklabels())}
    assert max(text.get_window_extent().x1 for text in texts if text not in ticks) <= width


CURVES = {
    "nothing": ([], []),
    "ten reports": ([train_loss(60 * number) for number in range(10)], [3.6, 0.7]),
    "fifteen thousand reports": ([train_loss(number // 10) for number in range(15_000)], [1.0] * 150),
    "NaN and infinite losses": ([1.0, math.nan, math.inf, 0.5, -math.inf] * 20, [2.0, math.nan, math.inf]),
    "nothing finite": ([math.nan], [math.inf]),
    "one validation": ([], [3.6]),
    "no change at all": ([0.0] * 50, [0.0, 0.0]),
    "enormous losses": ([1e30, 1e-30] * 40, []),
}


MEASURED = [name for name, (train, validation) in CURVES.items() if any(map(math.isfinite, (*train, *validation)))]


@pytest.mark.parametrize("name", MEASURED)
def test_loss_curve_is_readable(facts: Facts, name: str) -> None:
    train, validation = CURVES[name]
    _assert_readable(loss_curve(facts, _points(train), _validations(validation)))


@pytest.mark.parametrize("name", sorted(CURVES.keys() - set(MEASURED)))
def test_nothing_measured_draws_nothing(facts: Facts, name: str) -> None:
    train, validation = CURVES[name]
    assert loss_curve(facts, _points(train), _validations(validation)) is None
    assert analysis(facts, _points(train)) is None


def test_panels_show_what_was_measured(tmp_path: Path) -> None:
    run = rolled_back(tmp_path)
    with run.store:
        facts, points = collect(run.store, run.id, now=START + 1e6), run.store.metrics.points(run.id)
    all_panels = analysis(facts, points)
    without = analysis(facts, [dataclasses.replace(point, grad_norm=None, learning_rate=None) for point in points])
    for figure in (all_panels, without):
        _assert_readable(figure)
    assert all_panels is not None
    assert without is not None
    assert (len(all_panels.axes), len(without.axes)) == (4, 2)


@pytest.mark.parametrize("name", ["nothing", "ten reports", "NaN and infinite losses", "nothing finite"])
def test_overlay_draws_several_runs(name: str) -> None:
    train, validation = CURVES[name]
    curves = Curves.of(_points(train), _validations(validation))
    other = Curves.of(_points([2.0, 1.0]), _validations([2.0]))
    _assert_readable(overlay([("costs $5", curves), ("学習", other)], unit="nats per token"))


def _loss_png(facts: Facts, losses: Sequence[float], theme: Theme = LIGHT) -> bytes:
    figure = loss_curve(facts, _points(losses), [], theme=theme)
    assert figure is not None
    return png(figure)


def test_dark_theme_changes_the_picture(facts: Facts) -> None:
    assert _loss_png(facts, [1.0, 0.5], DARK) != _loss_png(facts, [1.0, 0.5])


def _luminance(colour: str) -> float:
    """Return the relative luminance (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_have_enough_contrast(theme: Theme) -> None:
    letters = (theme.ink, theme.grey, theme.train, theme.validation, theme.restart, theme.bad)
    assert all(_contrast(colour, theme.paper) >= 4.5 for colour in letters)
    assert all(_contrast(colour, theme.paper) >= 3.0 for colour in (theme.rollback, *theme.others))


def test_given_up_stretches_are_drawn(tmp_path: Path) -> None:
    run = rolled_back(tmp_path)
    with run.store as store:
        facts = collect(store, run.id, now=START + 1e6)
        points, every = store.metrics.points(run.id), store.metrics.points(run.id, superseded=True)
    assert [(place, back) for place, back, _ in rollbacks(facts)] == [(1030, 600), (1260, 900)]
    lost = given_up(facts, points, every)
    assert [(x.min(), x.max()) for x, _ in lost] == [(610, 1030), (910, 1260)]
    with_them, without = loss_curve(facts, points, [], every=every), loss_curve(facts, points, [])
    assert with_them is not None
    assert without is not None
    assert len(with_them.axes[0].lines) == len(without.axes[0].lines) + len(lost)


def test_restart_gives_up_nothing(facts: Facts, tmp_path: Path) -> None:
    run = Run(tmp_path)
    with run.store as store:
        run.play(*TWO_RESTARTS)
        points, every = store.metrics.points(run.id), store.metrics.points(run.id, superseded=True)
        assert len(every) > len(points)
    assert given_up(facts, points, every) == []


def test_reports_change_the_picture(facts: Facts) -> None:
    assert _loss_png(facts, [1.0, 0.5]) != _loss_png(facts, [1.0, 0.6])


def test_outline_keeps_single_spikes() -> None:
    x = np.arange(15_000.0)
    y = np.ones(15_000)
    y[7_777] = 9.0
    kept_x, kept_y = outline(x, y, 700)
    assert len(kept_x) <= 1_400
    assert kept_x[kept_y.argmax()] == 7_777
    assert (np.diff(kept_x) > 0).all()


def test_outline_keeps_gaps() -> None:
    y = np.ones(10_000)
    y[4_000:6_000] = np.nan
    assert np.isnan(outline(np.arange(10_000.0), y, 100)[1]).any()


def test_smoothing_keeps_straight_lines() -> None:
    line = np.arange(50.0)
    assert np.allclose(smoothed(line, 5), line)
    line[20] = np.nan
    assert np.isnan(smoothed(line, 5)[20])
    assert np.isfinite(np.delete(smoothed(line, 5), 20)).all()


def test_running_median_keeps_edges() -> None:
    step = np.concatenate((np.zeros(50), np.ones(50)))
    assert (running_median(step, 9) == step).all()
    step[-1] = 9.0
    assert running_median(step, 9)[-1] == 1.0
    assert running_median(np.arange(2.0), 9).tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [([3.0, 0.1], True), ([3.0, 1.0], False), ([3.0, 0.0], False), ([-1.0, 30.0], False), ([], False)],
)
def test_axis_is_log_for_wide_ranges(values: list[float], logarithmic: bool) -> None:
    assert wants_log(np.array(values)) is logarithmic
