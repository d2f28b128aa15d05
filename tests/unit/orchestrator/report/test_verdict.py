"""The verdict on a run, with intervals from paired rows."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.model.job import Validation
from jobs.model.outcomes import Reason
from jobs.model.states import Status
from jobs.policies.verdict import Code
from orchestrator.report.analysis.bootstrap import Bootstrap
from orchestrator.report.analysis.verdict import Comparison
from orchestrator.report.collect import collect
from orchestrator.report.facts import Findings, PendingStatus, Ruling
from tests.unit.orchestrator.report_runs import START, Run
from tests.unit.orchestrator.series_runs import (
    WEIGHTS,
    MadeEvent,
    facts,
    played,
    reference,
    series,
    validation,
)

LATER = START + 1e6


def _findings(run: Run, **changes: Any) -> Findings:
    with run.store:
        return collect(run.store, run.id, now=LATER, **changes).findings


def _ruling(run: Run, **changes: Any) -> Ruling:
    ruling = _findings(run, **changes).ruling
    assert ruling is not None
    return ruling


def test_reference_run_is_wasted(tmp_path: Path) -> None:
    found = _findings(reference(tmp_path))
    assert found.ruling is not None
    verdict = found.ruling.verdict
    assert (verdict.code, verdict.good_from, verdict.best) == (Code.WASTED, 500, 10_000)
    assert verdict.share_after_good == pytest.approx(0.967, abs=0.001)
    assert found.ruling.seconds_after_good == pytest.approx(8.0 * 3600, rel=0.01)
    assert "--set iters=500 --set learning_rate=0.0001`, at half" in found.ruling.advice
    names = ["initial learning", "further training", "spike", "recovery", "further training", "convergence"]
    assert [one.name for one in found.phases] == names
    [spike] = found.happenings
    assert spike.code == "spike_in_losses"
    assert (spike.iteration, spike.numbers["peak_iteration"]) == (970, 1060)
    assert spike.numbers["peak"] == pytest.approx(8.519)
    assert spike.cost_iterations == pytest.approx(4000, abs=150)
    assert spike.cost_seconds == pytest.approx(4000 * 8.3 * 3600 / 15_000, rel=0.05)


def _run(home: Path, losses: list[float], *, falling: float = 0.0, told: bool = True, **changes: Any) -> Run:
    """Return a run validated every 100 iterations with these losses, whose train loss falls by so much a report."""

    def events(_: Run) -> Iterator[MadeEvent]:
        train = {place: 1.0 - falling * place / 10 for place in range(10, 100 * (len(losses) - 1) + 1, 10)}
        measured = {100 * place: validation(100 * place, loss, **changes) for place, loss in enumerate(losses)}
        return series(train, measured, first_events=facts() if told else [])

    return played(home, events, iters=100 * (len(losses) - 1), steps_per_eval=100)


FALLING = [3.0, 2.5, 2.0, 1.8, 1.6, 1.4, 1.3, 1.2, 1.1, 1.0, 0.9]
RISING = [3.0, 2.0, 1.5, 1.2, 1.1, 1.0, 0.9, 1.0, 1.1, 1.2, 1.3]
FLAT = [3.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]


@pytest.mark.parametrize(
    ("losses", "falling", "code"),
    [
        (FALLING, 0.005, Code.UNDERTRAINED),
        (RISING, 0.005, Code.OVERFIT),
        (RISING, 0.0, Code.REGRESSED),
        (RISING, -0.005, Code.REGRESSED),
        (FLAT, 0.0, Code.WASTED),
    ],
)
def test_verdict_follows_paired_rows(tmp_path: Path, losses: list[float], falling: float, code: Code) -> None:
    assert _ruling(_run(tmp_path, losses, falling=falling)).verdict.code is code


def test_few_rows_are_inconclusive(tmp_path: Path) -> None:
    ruling = _ruling(_run(tmp_path, FLAT, rows=20, told=False))
    assert ruling.verdict.code is Code.INCONCLUSIVE
    assert ruling.verdict.otherwise is Code.WASTED
    assert "20 rows, fewer than 50" in ruling.verdict.because


@pytest.mark.parametrize(
    ("reason", "code"), [(Reason.DIVERGED, Code.DIVERGED), (Reason.SPIKE, Code.DIVERGED), (Reason.KILLED, Code.WASTED)]
)
def test_only_the_loss_guard_diverges(tmp_path: Path, reason: Reason, code: Code) -> None:
    run = _run(tmp_path, FLAT)
    found = _findings(run, pending=PendingStatus(status=Status.FAILED, reason=reason, detail="3 rollbacks before"))
    assert found.ruling is not None
    assert found.ruling.verdict.code is code
    assert [one.code for one in found.happenings] == ([reason] if code is Code.DIVERGED else [])


def test_unfinished_run_has_no_verdict(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert _findings(run).ruling is None
    other = tmp_path / "other"
    other.mkdir()
    assert _findings(Run(other), pending=PendingStatus(status=Status.CANCELLED)).ruling is None


def test_bootstrap_interval_covers_truth() -> None:
    chance = np.random.default_rng(5)
    weights = chance.integers(20, 400, 80)
    hits = 0
    for _ in range(80):
        noise = chance.normal(0.1, 0.5, 80)
        [found] = Bootstrap(weights.tolist()).differences([noise.tolist()], [0.0] * 80)
        hits += found.low <= 0.1 <= found.high
        assert found.standard_error == pytest.approx((found.high - found.low) / 3.92, rel=0.25)
    assert 0.88 <= hits / 80 <= 1


def test_bootstrap_is_deterministic() -> None:
    rows = [random.Random(1).random() for _ in range(60)]  # noqa: S311 makes losses, guards nothing
    assert Bootstrap(WEIGHTS).interval(rows) == Bootstrap(WEIGHTS).interval(rows)


def _validation(iteration: int, losses: list[float] | None, loss: float = 1.0) -> Validation:
    return Validation(
        attempt=1,
        kind="validation",
        iteration=iteration,
        time=START,
        loss=loss,
        standard_error=0.1,
        examples=60,
        seconds=1.0,
        row_losses=None if losses is None else tuple(losses),
    )


def test_rows_without_tokens_are_excluded() -> None:
    one, other = _validation(0, [1.0] * 59 + [math.nan]), _validation(1, [0.5] * 59 + [math.nan])
    [found] = Comparison([one, other], [10] * 59 + [0]).differences([other], one)
    assert found is not None
    assert (found.paired, found.rows) == (True, 59)
    assert found.value == pytest.approx(-0.5)


def test_not_finite_loss_keeps_other_pairs() -> None:
    ones = [_validation(0, [1.0] * 60), _validation(1, [math.nan] * 60, math.nan), _validation(2, [0.5] * 60, 0.5)]
    found = Comparison(ones, WEIGHTS).differences(ones, ones[2])
    assert [one is not None and one.paired for one in found] == [True, False, True]


def test_errors_replace_missing_rows() -> None:
    ones = [_validation(0, None, 1.0), _validation(1, None, 0.7)]
    found = Comparison(ones, WEIGHTS).differences(ones, ones[1])[0]
    assert found is not None
    assert not found.paired
    assert found.value == pytest.approx(0.3)
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.hypot(0.1, 0.1), rel=0.001)
