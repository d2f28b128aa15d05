"""What the rules find in a run: its verdict with intervals, its phases, its timeline."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.model.job import Incident, ProgressPoint, Validation
from jobs.model.outcomes import Reason
from jobs.model.run_plan import Stage
from jobs.model.states import Status
from jobs.policies.verdict import Code
from orchestrator.report.analysis.bootstrap import Bootstrap
from orchestrator.report.analysis.phases import phases
from orchestrator.report.analysis.settings_diff import differences
from orchestrator.report.analysis.timeline import guilty
from orchestrator.report.analysis.verdict import Comparison, trend
from orchestrator.report.collect import collect
from orchestrator.report.facts import Findings, Ruling
from orchestrator.report.render.report import render
from tests.unit.orchestrator.report_runs import START, Run
from tests.unit.orchestrator.series_runs import WEIGHTS, Told, facts, played, reference, series, validation, went_back

LATER = START + 1e6


def _findings(run: Run, **changes: Any) -> Findings:
    with run.store:
        return collect(run.store, run.id, now=LATER, **changes).findings


def _ruling(run: Run, **changes: Any) -> Ruling:
    ruling = _findings(run, **changes).ruling
    assert ruling is not None
    return ruling


# --- the verdict ---


def test_the_reference_run_is_wasted_and_its_spike_stands_in_the_timeline(tmp_path: Path) -> None:
    found = _findings(reference(tmp_path))
    assert found.ruling is not None
    verdict = found.ruling.verdict
    assert (verdict.code, verdict.good_from, verdict.best) == (Code.WASTED, 500, 10_000)
    assert verdict.share_after_good == pytest.approx(0.967, abs=0.001)
    assert found.ruling.seconds_after_good == pytest.approx(8.0 * 3600, rel=0.01)
    assert "`iters: 500` and `learning_rate: 0.0001`, because the loss spiked" in found.ruling.advice
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

    def events(_: Run) -> Iterator[Told]:
        train = {place: 1.0 - falling * place / 10 for place in range(10, 100 * (len(losses) - 1) + 1, 10)}
        measured = {100 * place: validation(100 * place, loss, **changes) for place, loss in enumerate(losses)}
        return series(train, measured, told=facts() if told else [])

    return played(home, events, iters=100 * (len(losses) - 1), steps_per_eval=100)


FALLING = [3.0, 2.5, 2.0, 1.8, 1.6, 1.4, 1.3, 1.2, 1.1, 1.0, 0.9]
RISING = [3.0, 2.0, 1.5, 1.2, 1.1, 1.0, 0.9, 1.0, 1.1, 1.2, 1.3]
FLAT = [3.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]


@pytest.mark.parametrize(
    ("losses", "falling", "code"),
    [
        (FALLING, 0.005, Code.UNDERTRAINED),
        (RISING, 0.005, Code.OVERFIT),
        (RISING, 0.0, Code.OK),
        (FLAT, 0.0, Code.WASTED),
    ],
)
def test_a_run_with_its_rows_gets_the_verdict_its_pairs_carry(
    tmp_path: Path, losses: list[float], falling: float, code: Code
) -> None:
    assert _ruling(_run(tmp_path, losses, falling=falling)).verdict.code is code


def test_few_rows_and_rows_that_were_trained_on_are_said_and_nothing_is_claimed(tmp_path: Path) -> None:
    ruling = _ruling(_run(tmp_path, FLAT, rows=20, told=False))
    assert ruling.verdict.code is Code.INCONCLUSIVE
    assert ruling.verdict.otherwise is Code.WASTED
    assert "20 rows, fewer than 50" in ruling.verdict.because


@pytest.mark.parametrize(
    ("reason", "code"), [(Reason.DIVERGED, Code.DIVERGED), (Reason.SPIKE, Code.DIVERGED), (Reason.KILLED, Code.WASTED)]
)
def test_only_the_loss_guard_makes_a_failed_run_diverged(tmp_path: Path, reason: Reason, code: Code) -> None:
    run = _run(tmp_path, FLAT)
    found = _findings(run, as_status=Status.FAILED, as_reason=reason, as_detail="went back 3 times before")
    assert found.ruling is not None
    assert found.ruling.verdict.code is code
    assert [one.code for one in found.happenings] == ([reason] if code is Code.DIVERGED else [])


def test_a_run_that_has_not_ended_gets_no_verdict(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert _findings(run).ruling is None
    other = tmp_path / "other"
    other.mkdir()
    assert _findings(Run(other), as_status=Status.CANCELLED, as_reason=Reason.STOPPED_BY_USER).ruling is None


# --- intervals ---


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    chance = np.random.default_rng(5)
    weights = chance.integers(20, 400, 80)
    hits = 0
    for _ in range(80):
        noise = chance.normal(0.1, 0.5, 80)
        [found] = Bootstrap(weights.tolist()).differences([noise.tolist()], [0.0] * 80)
        hits += found.low <= 0.1 <= found.high
        assert found.standard_error == pytest.approx((found.high - found.low) / 3.92, rel=0.25)
    assert 0.88 <= hits / 80 <= 1


def test_the_same_rows_give_the_same_interval_every_time() -> None:
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


def test_rows_without_a_token_to_learn_are_left_out_of_every_pair() -> None:
    one, other = _validation(0, [1.0] * 59 + [math.nan]), _validation(1, [0.5] * 59 + [math.nan])
    [found] = Comparison([one, other], [10] * 59 + [0]).differences([other], one)
    assert found is not None
    assert (found.paired, found.rows) == (True, 59)
    assert found.value == pytest.approx(-0.5)


def test_a_measurement_that_is_not_finite_spoils_no_other_pair() -> None:
    ones = [_validation(0, [1.0] * 60), _validation(1, [math.nan] * 60, math.nan), _validation(2, [0.5] * 60, 0.5)]
    found = Comparison(ones, WEIGHTS).differences(ones, ones[2])
    assert [one is not None and one.paired for one in found] == [True, False, True]


def test_without_rows_the_errors_have_to_do() -> None:
    ones = [_validation(0, None, 1.0), _validation(1, None, 0.7)]
    found = Comparison(ones, WEIGHTS).differences(ones, ones[1])[0]
    assert found is not None
    assert not found.paired
    assert found.value == pytest.approx(0.3)
    assert found.high - found.low == pytest.approx(2 * 1.96 * math.hypot(0.1, 0.1), rel=0.001)


# --- phases ---


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
def test_noise_is_no_spike(reports: int, noise: float, kind: str) -> None:
    for seed in range(5):
        found = phases(_points(_curve(reports, noise=noise, seed=seed, kind=kind)))
        assert "spike" not in [one.name for one in found]
        assert found[0].name == "initial learning"


@pytest.mark.parametrize("reports", [300, 1500])
def test_a_spike_and_its_recovery_are_found_where_they_are(reports: int) -> None:
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


def test_a_loss_that_never_comes_back_is_not_called_converged() -> None:
    losses = _curve(300, noise=0.02, seed=1)
    found = phases(_points(losses[:200] + [loss + 2.0 for loss in losses[200:]]))
    assert found[-1].name == "recovery"
    assert found[-1].back is False


def test_phases_follow_each_other_without_a_gap_from_the_first_iteration_to_the_last() -> None:
    for seed in range(20):
        losses = _curve(200, noise=0.3, seed=seed)
        found = phases(_points([*losses, math.nan, *losses]))
        assert found[0].first == 0
        assert found[-1].last == 4010
        assert all(one.last == after.first for one, after in itertools.pairwise(found))


@pytest.mark.parametrize("losses", [[], [1.0] * 7, [math.nan] * 50])
def test_too_few_reports_have_no_phases(losses: list[float]) -> None:
    assert phases(_points(losses)) == ()


def test_a_loss_that_only_rises_has_learned_nothing() -> None:
    assert "initial learning" not in [one.name for one in phases(_points([1.0 + place / 50 for place in range(50)]))]


def test_the_trend_is_of_the_reports_after_the_best() -> None:
    points = _points([1.0 - 0.01 * place for place in range(40)])
    found = trend(points, after=200)
    assert found is not None
    assert found.rows == 20
    assert found.value == pytest.approx(-0.1)
    assert found.high < 0
    assert trend(points, after=350) is None


# --- the timeline ---


def test_a_rollback_says_what_was_seen_what_was_done_and_what_it_cost(tmp_path: Path) -> None:
    found = _findings(went_back(tmp_path))
    assert [one.code for one in found.happenings] == ["spike", "autopsy", "spike", "autopsy"]
    first = found.happenings[0]
    assert first.what == "The loss spiked (attempt 1, iteration 1,030)"
    assert first.evidence == "loss 7.634 at iteration 1,030: 62.0 standard deviations above the median 0.812"
    assert first.action.endswith("resume quality exact")
    assert first.cost_iterations == 430
    assert first.cost_seconds == pytest.approx(217, abs=1)


def test_a_run_that_went_back_tells_of_it_in_every_section(tmp_path: Path) -> None:
    run = went_back(tmp_path)
    with run.store:
        facts = collect(run.store, run.id, now=LATER)
    text = render(facts)
    assert "2 restarts, 0 iterations trained twice, 790 given up." in text
    assert "learning rate x 1 → 0.5, salt of the data order 0 → 2" in text
    assert "| `train.jsonl:980`" in text
    assert "Autopsy: the rows around the first flag" in text
    assert [(one.first_iteration, one.because) for one in facts.findings.changes] == [
        (600, "spike at iteration 1030"),
        (900, "spike at iteration 1260"),
    ]


def _incident(code: str, text: str, **evidence: Any) -> Incident:
    return Incident(job_id=1, attempt=1, time=START + 50, code=code, text=text, evidence=evidence)


@pytest.mark.parametrize(
    "code", ["suspect", "drift", "not_finite", "overfitting", "quarantined", "early_stopped", "diverged", "a_new_one"]
)
def test_any_incident_is_told_whatever_its_evidence(tmp_path: Path, code: str) -> None:
    run = _run(tmp_path, FLAT)
    run.store.incidents.add(_incident(code, "what | it saw", iteration=70, rows=["train.jsonl:3"]))
    with run.store:
        facts = collect(run.store, run.id, now=LATER)
    [one] = facts.findings.happenings
    assert "what | it saw" in one.what + one.evidence
    assert one.iteration == 70
    assert "what \\| it saw" in render(facts)


def test_guilty_rows_are_ranked_once_each_and_nan_comes_first() -> None:
    rows = [{"line": "train.jsonl:4", "loss": 2.0}, {"file": "train.jsonl", "line": 9, "loss": "nan"}]
    again = [{"line": "train.jsonl:4", "loss": 3.0}, {"line": "train.jsonl:5", "loss": None}]
    found = guilty(
        [_incident("autopsy", "x", rows=rows), _incident("autopsy", "y", rows=again), _incident("spike", "z")]
    )
    assert [(one.place, one.loss) for one in found] == [("train.jsonl:9", math.inf), ("train.jsonl:4", 3.0)]


def test_every_difference_between_two_stages_is_named() -> None:
    one = Stage(first_example=0, batch_size=4, grad_accumulation_steps=2, grad_checkpoint=False, max_seq_length=2048)
    other = Stage(
        first_example=80,
        batch_size=2,
        grad_accumulation_steps=4,
        grad_checkpoint=True,
        max_seq_length=512,
        learning_rate_factor=0.5,
        salt=3,
        segment=500,
        because="spike",
    )
    assert differences(one, one) == "as requested"
    assert differences(one, other) == (
        "batch 4 -> 2, accumulation 2 -> 4, gradient checkpointing off -> on, max_seq_length 2048 -> 512, "
        "learning rate x 1 -> 0.5, salt of the data order 0 -> 3, segment none -> 500"
    )
