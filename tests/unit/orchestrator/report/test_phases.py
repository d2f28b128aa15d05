"""The phases of a run and the trend of its train loss."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from jobs.model.job import ProgressPoint
from jobs.policies.verdict import Code, Verdict
from orchestrator.report.analysis.phases import phases
from orchestrator.report.analysis.verdict import trend
from tests.unit.orchestrator.report_runs import START


def _points(losses: list[float]) -> list[ProgressPoint]:
    empty = dict.fromkeys(("learning_rate", "it_s", "tok_s", "tokens", "active_bytes", "cache_bytes"))
    empty |= dict.fromkeys(("peak_bytes", "footprint_bytes"))
    return [
        ProgressPoint(attempt=1, iteration=10 * place, time=START + place, train_loss=loss, **empty)
        for place, loss in enumerate(losses, start=1)
    ]


def _curve(reports: int, *, noise: float, seed: int, kind: str = "normal") -> list[float]:
    chance = random.Random(seed)  # noqa: S311 makes losses, guards nothing

    def draw() -> float:
        return chance.gauss(0, noise) if kind == "normal" else chance.expovariate(1 / noise) - noise

    return [max(0.01, 2.5 * math.exp(-place / (reports / 8)) + 0.6 + draw()) for place in range(reports)]


@pytest.mark.parametrize("kind", ["normal", "skewed"])
@pytest.mark.parametrize(("reports", "noise"), [(60, 0.05), (300, 0.15), (1500, 0.15), (15_000, 0.2)])
def test_noise_is_not_a_spike(reports: int, noise: float, kind: str) -> None:
    for seed in range(5):
        found = phases(_points(_curve(reports, noise=noise, seed=seed, kind=kind)))
        assert "spike" not in [one.name for one in found]
        assert found[0].name == "initial learning"


@pytest.mark.parametrize("reports", [300, 1500])
def test_spike_and_recovery_are_located(reports: int) -> None:
    losses = _curve(reports, noise=0.05, seed=1)
    top, length = reports // 2, reports // 10
    for place in range(length):
        losses[top + place] += 5.0 * (1 - place / length)
    found = phases(_points(losses))
    [spike] = [one for one in found if one.name == "spike"]
    [recovery] = [one for one in found if one.name == "recovery"]
    assert abs(spike.first - 10 * top) <= 100
    assert recovery.back is True
    assert abs(recovery.last - 10 * (top + length)) <= 10 * length * 0.2 + 100


def test_lasting_rise_is_not_convergence() -> None:
    losses = _curve(300, noise=0.02, seed=1)
    found = phases(_points(losses[:200] + [loss + 2.0 for loss in losses[200:]]))
    assert found[-1].name == "recovery"
    assert found[-1].back is False


def test_phases_cover_all_iterations() -> None:
    for seed in range(20):
        losses = _curve(200, noise=0.3, seed=seed)
        found = phases(_points([*losses, math.nan, *losses]))
        assert found[0].first == 0
        assert found[-1].last == 4010
        assert all(one.last == after.first for one, after in itertools.pairwise(found))


@pytest.mark.parametrize("losses", [[], [1.0] * 7, [math.nan] * 50])
def test_few_reports_have_no_phases(losses: list[float]) -> None:
    assert phases(_points(losses)) == ()


def test_rising_loss_has_no_initial_learning() -> None:
    assert "initial learning" not in [one.name for one in phases(_points([1.0 + place / 50 for place in range(50)]))]


NOT_SETTLED = [Code.DIVERGED, Code.OVERFIT, Code.REGRESSED, Code.UNDERTRAINED]


@pytest.mark.parametrize("code", Code)
def test_phases_do_not_contradict_verdict(code: Code) -> None:
    points = _points(_curve(300, noise=0.02, seed=1))
    names = [one.name for one in phases(points, Verdict(code=code, because="", good_from=500))]
    assert ("convergence" in names) == (code not in NOT_SETTLED)
    assert "initial learning" in names
    hidden = Verdict(code=Code.INCONCLUSIVE, because="", otherwise=code, good_from=500)
    assert ("convergence" in [one.name for one in phases(points, hidden)]) == (code not in NOT_SETTLED)


def test_useless_training_is_no_learning() -> None:
    """The validation loss did not improve, or the train loss did not fall by more than its noise."""
    nothing = Verdict(code=Code.WASTED, because="", good_from=0)
    names = [one.name for one in phases(_points(_curve(300, noise=0.02, seed=1)), nothing)]
    assert "initial learning" not in names
    flat = _points([2.0 + 0.01 * (place % 5) for place in range(100)])
    assert "initial learning" not in [one.name for one in phases(flat)]


def test_stuck_model_has_a_phase_of_its_own() -> None:
    losses = [*_curve(100, noise=0.02, seed=1), *[5.951] * 50]
    found = phases(_points(losses), Verdict(code=Code.DIVERGED, because="", good_from=500), stuck_from=1010)
    assert (found[-1].name, found[-1].first, found[-1].last) == ("no learning", 1010, 1500)
    assert all(one.last == after.first for one, after in itertools.pairwise(found))


def test_trend_starts_after_the_best() -> None:
    points = _points([1.0 - 0.01 * place for place in range(40)])
    found, level = trend(points, after=200)
    assert found is not None
    assert level == pytest.approx(0.655)
    assert found.rows == 20
    assert found.value == pytest.approx(-0.1)
    assert found.high < 0
    assert trend(points, after=350) == (None, None)
