"""The loss curve: a picture comes out whatever the run was like, and says what it shows."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Sequence

import numpy as np
import pytest

from jobs.job import ProgressPoint, Validation
from orchestrator.report.collect import collect
from orchestrator.report.curves import apart, outline, smoothed, wants_log
from orchestrator.report.facts import Facts
from orchestrator.report.plots.loss import HEIGHT, WIDTH, loss_curve
from tests.unit.orchestrator.report_runs import START, TWO_RESTARTS, Run, train_loss


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


def _size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png[-8:-4] == b"IEND"
    width, height = struct.unpack(">II", png[16:24])
    return width, height


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


@pytest.mark.parametrize("name", CURVES)
def test_a_picture_of_the_promised_size_comes_out(facts: Facts, name: str) -> None:
    train, validation = CURVES[name]
    assert _size(loss_curve(facts, _points(train), _validations(validation))) == (WIDTH, HEIGHT) == (1600, 900)


def test_a_run_with_reports_looks_unlike_one_without(facts: Facts) -> None:
    assert loss_curve(facts, _points([1.0, 0.5]), []) != loss_curve(facts, [], [])


def test_a_spike_of_one_report_survives_the_thinning() -> None:
    x = np.arange(15_000.0)
    y = np.ones(15_000)
    y[7_777] = 9.0
    kept_x, kept_y = outline(x, y, 700)
    assert len(kept_x) <= 1_400
    assert kept_x[kept_y.argmax()] == 7_777
    assert (np.diff(kept_x) > 0).all()


def test_a_gap_survives_the_thinning() -> None:
    y = np.ones(10_000)
    y[4_000:6_000] = np.nan
    assert np.isnan(outline(np.arange(10_000.0), y, 100)[1]).any()


def test_smoothing_leaves_a_straight_line_straight_and_passes_over_gaps() -> None:
    line = np.arange(50.0)
    assert np.allclose(smoothed(line, 5), line)
    line[20] = np.nan
    assert np.isnan(smoothed(line, 5)[20])
    assert np.isfinite(np.delete(smoothed(line, 5), 20)).all()


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [([3.0, 0.1], True), ([3.0, 1.0], False), ([3.0, 0.0], False), ([-1.0, 30.0], False), ([], False)],
)
def test_the_axis_is_logarithmic_where_the_loss_spans_much(values: list[float], logarithmic: bool) -> None:
    assert wants_log(np.array(values)) is logarithmic


def test_labels_never_overlap() -> None:
    placed = apart([0.5, 0.5, 0.49, 0.99, 0.0], 0.125, 0.04, 0.96)
    ordered = sorted(placed)
    assert all(high - low >= 0.125 - 1e-9 for low, high in itertools.pairwise(ordered))
    assert ordered[0] >= 0.04
    assert ordered[-1] <= 0.96 + 1e-9
