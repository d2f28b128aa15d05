"""Early stopping."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.model.job import Validation
from jobs.model.spec import EarlyStop
from jobs.policies.early_stop import Patience, Stop, best, paired_error


def measured(iteration: int, loss: float, rows: tuple[float, ...] | None = None) -> Validation:
    return Validation(
        attempt=1,
        kind="validation",
        iteration=iteration,
        time=0.0,
        loss=loss,
        standard_error=0.5,
        examples=4,
        seconds=1.0,
        row_losses=rows,
    )


def series(*losses: float) -> list[Validation]:
    return [measured(100 * number, loss) for number, loss in enumerate(losses)]


def stop(validations: list[Validation], rule: EarlyStop) -> Stop | None:
    patience = Patience(rule)
    ends = [patience.add(validation) for validation in validations]
    return ends[-1] if ends else None


def test_rows_are_compared_in_pairs() -> None:
    """A difficult row adds to the error of both losses, but not to that of their difference."""
    error = paired_error(measured(0, 2.5, (1.0, 4.0, 1.0, 4.0)), measured(100, 2.4, (0.9, 3.9, 0.9, 3.9)))
    assert error == pytest.approx(0.0, abs=1e-12)
    assert paired_error(measured(0, 2.5, (1.0, 4.0)), measured(100, 2.4, (0.8, 4.0))) == pytest.approx(0.1)


@pytest.mark.parametrize("rows", [None, (1.0,), (1.0, 2.0, 3.0), (math.nan, math.nan)])
def test_unpaired_rows_have_no_error(rows: tuple[float, ...] | None) -> None:
    assert paired_error(measured(0, 2.5, (1.0, 4.0)), measured(100, 2.0, rows)) == 0.0


def test_run_ends_after_patience() -> None:
    losses = series(3.0, 2.0, 1.5, 1.4999, 1.6, 1.4995, 1.7)
    found = stop(losses, EarlyStop(patience=3, min_delta=0.001))
    assert found is not None
    assert (found.iteration, found.best) == (500, 200)
    assert found.text.startswith("3 consecutive validations ")
    assert "less than 0.001 nats" in found.text


def test_many_small_gains_add_up() -> None:
    assert stop(series(*(3.0 - 0.0004 * number for number in range(40))), EarlyStop(patience=5)) is None


def test_min_delta_in_standard_errors() -> None:
    rule = EarlyStop(patience=1, min_delta="2se")
    before = measured(0, 2.0, (1.0, 3.0))
    assert stop([before, measured(1, 1.9, (0.7, 3.1))], rule) is not None, "0.1 ± 0.2 is no improvement"
    assert stop([before, measured(1, 1.9, (0.9, 2.9))], rule) is None, "0.1 on each row is one"


@pytest.mark.parametrize("worst", [math.nan, math.inf])
def test_non_finite_loss_is_never_better(worst: float) -> None:
    assert stop(series(2.0, worst, worst), EarlyStop(patience=2)) is not None
    assert stop(series(worst, 2.0, 1.0), EarlyStop(patience=2)) is None


@given(st.lists(st.floats(0.1, 9.0), max_size=40), st.integers(1, 5), st.integers(0, 40))
def test_later_losses_do_not_move_the_end(losses: list[float], patience: int, cut: int) -> None:
    rule = EarlyStop(patience=patience)
    early = stop(series(*losses[:cut]), rule)
    assert early is None or stop(series(*losses), rule) == early


@given(st.lists(st.floats(0.1, 9.0) | st.just(math.nan), max_size=20))
def test_best_is_the_first_lowest(losses: list[float]) -> None:
    found = best(series(*losses))
    finite = [loss for loss in losses if math.isfinite(loss)]
    assert (found is None) == (not finite)
    if found is not None:
        assert found.loss == min(finite)
        assert found.iteration == 100 * losses.index(found.loss)
