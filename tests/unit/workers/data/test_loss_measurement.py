"""The loss of rows, its standard error, and its first rows."""

from __future__ import annotations

import math
import statistics

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


def test_rewards_of_pairs_have_errors() -> None:
    rewards = ((2.0, 1.0), (1.0, 3.0), (4.0, 1.0), (9.0, 0.0))
    measured = LossMeasurement(sums=(1.0,) * 4, tokens=(1, 1, 1, 0), rewards=rewards, seconds=1.0)
    found = measured.measured_rewards
    assert found is not None
    assert (found.chosen, found.rejected) == pytest.approx((7 / 3, 5 / 3)), "the last row is left out"
    assert (found.margin, found.accuracy) == pytest.approx((2 / 3, 2 / 3))
    assert found.margin_error == pytest.approx(statistics.stdev([1.0, -2.0, 3.0]) / math.sqrt(3))
    assert found.accuracy_error == pytest.approx(statistics.stdev([1, 0, 1]) / math.sqrt(3))


def test_rewards_of_labels_have_signs() -> None:
    """A labelled row has one reward: a desirable answer's should be positive, an undesirable one's negative."""
    rewards = ((2.0, math.nan), (-1.0, math.nan), (math.nan, -3.0), (math.nan, -1.0))
    found = LossMeasurement(sums=(1.0,) * 4, tokens=(1,) * 4, rewards=rewards, seconds=1.0).measured_rewards
    assert found is not None
    assert (found.chosen, found.rejected, found.margin, found.accuracy) == pytest.approx((0.5, -2.0, 2.5, 0.75))
    errors = [statistics.stdev(side) / math.sqrt(2) for side in ([2.0, -1.0], [-3.0, -1.0])]
    assert found.margin_error == pytest.approx(math.hypot(*errors))


def test_no_rewards_without_preferences() -> None:
    assert MEASURED.measured_rewards is None
