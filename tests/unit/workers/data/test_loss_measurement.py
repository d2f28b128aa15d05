"""The loss of rows, its standard error, and its first rows."""

from __future__ import annotations

import math

import pytest

from workers.data.loss_measurement import LossMeasurement

MEASURED = LossMeasurement(sums=(2.0, 6.0, 1.0), tokens=(2, 3, 1), seconds=6.0)


def test_loss_is_per_token_not_per_row() -> None:
    assert MEASURED.loss == pytest.approx(9.0 / 6)
    assert MEASURED.row_losses == [1.0, 2.0, 1.0]
    assert MEASURED.examples == 3


def test_standard_error_is_that_of_a_ratio() -> None:
    residuals = [2.0 - 1.5 * 2, 6.0 - 1.5 * 3, 1.0 - 1.5]
    expected = math.sqrt(3 / 2 * sum(residual**2 for residual in residuals)) / 6
    assert MEASURED.standard_error == pytest.approx(expected)


def test_too_little_data_gives_no_error() -> None:
    assert MEASURED.first(1).standard_error is None
    nothing = LossMeasurement(sums=(0.0, 0.0), tokens=(0, 0), seconds=1.0)
    assert math.isnan(nothing.loss)
    assert nothing.standard_error is None
    assert all(math.isnan(loss) for loss in nothing.row_losses)


@pytest.mark.parametrize(("seconds", "rows"), [(6.0, 3), (100.0, 3), (4.1, 2), (0.0, 1)])
def test_rows_within_the_time_are_counted(seconds: float, rows: int) -> None:
    assert MEASURED.rows_within(seconds, multiple=1) == rows


def test_at_least_one_batch_is_counted() -> None:
    assert MEASURED.rows_within(0.1, multiple=2) == 2
    assert MEASURED.rows_within(0.1, multiple=8) == 3


def test_first_takes_rows_in_file_order() -> None:
    assert MEASURED.first(2) == LossMeasurement(sums=(2.0, 6.0), tokens=(2, 3), seconds=4.0)
