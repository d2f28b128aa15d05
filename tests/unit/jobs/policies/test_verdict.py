"""The verdict: its rules, its texts, and the advice."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.policies.verdict import Code, Difference, Evidence, Point, RequestedRun, advice, best_of, judge
from tests.golden import assert_golden

PLAN = RequestedRun(iters=1000, learning_rate=2e-4, steps_per_eval=100, epochs=40.0, spiked=False, scheduled=False)


def difference(value: float, error: float = 0.01, *, paired: bool = True) -> Difference:
    """Return a difference with its normal interval."""
    return Difference(
        value=value, standard_error=error, low=value - 1.96 * error, high=value + 1.96 * error, rows=60, paired=paired
    )


def run(
    losses: Sequence[float], *, rows: int = 60, error: float = 0.01, paired: bool = True, **more: object
) -> Evidence:
    """Return the evidence of a run validated every 100 iterations, from 0 on."""
    best = min((loss for loss in losses if math.isfinite(loss)), default=None)
    points = [
        Point(
            iteration=100 * number,
            loss=loss,
            standard_error=0.02,
            rows=rows,
            minus_best=None if best is None else difference(loss - best, error, paired=paired),
        )
        for number, loss in enumerate(losses)
    ]
    evidence = Evidence(
        guarded=None,
        iterations=100 * (len(losses) - 1),
        points=points,
        last_stretch=difference(losses[-1] - losses[-3]) if len(losses) > 2 else None,
        train_after_best=None,
        also_trained=0,
    )
    return dataclasses.replace(evidence, **more)  # type: ignore[arg-type]


FALLING = [3.0, 2.5, 2.0, 1.8, 1.6, 1.4, 1.3, 1.2, 1.1, 1.0, 0.9]
SETTLED = [3.0, 2.5, 2.0, 1.8, 1.6, 1.4, 1.1, 1.0, 0.99, 0.981, 0.98]
UP_AGAIN = [3.0, 2.0, 1.5, 1.2, 1.1, 1.0, 0.9, 1.0, 1.1, 1.2, 1.3]
EARLY = [3.0, 0.5, 0.52, 0.55, 0.5, 0.53, 0.51, 0.5, 0.495, 0.51, 0.5]
STILL = difference(-0.2)

CASES = {
    "the guard ended it": (run(FALLING, guarded="3 rollbacks"), Code.DIVERGED),
    "the guard ended it before any validation": (run([], guarded="3 rollbacks"), Code.DIVERGED),
    "it ended in NaN": (run([*FALLING[:-1], math.nan]), Code.DIVERGED),
    "validation rises while train falls": (run(UP_AGAIN, train_after_best=STILL), Code.OVERFIT),
    "validation rises and train does not fall": (run(UP_AGAIN, train_after_best=difference(0.1)), Code.OK),
    "validation rises within its interval": (run([*SETTLED, 0.99], train_after_best=STILL), Code.OK),
    "as good early": (run(EARLY), Code.WASTED),
    "as good early, and worse at the end": (run([*EARLY, 0.9], train_after_best=STILL), Code.OVERFIT),
    "nothing learned": (run([1.0, 1.001, 0.999, 1.0, 1.002, 1.0]), Code.WASTED),
    "still falling": (run(FALLING), Code.UNDERTRAINED),
    "best is last, but it has settled": (run(SETTLED), Code.OK),
    "too few rows": (run(EARLY, rows=49), Code.INCONCLUSIVE),
    "just enough rows": (run(EARLY, rows=50), Code.WASTED),
    "too few validations": (run(FALLING[:4]), Code.INCONCLUSIVE),
    "just enough validations": (run(FALLING[:5]), Code.UNDERTRAINED),
    "validation rows also trained": (run(EARLY, also_trained=1), Code.INCONCLUSIVE),
    "one of a hundred also trained": (run(EARLY, rows=100, also_trained=1), Code.WASTED),
    "not checked for such rows": (run(EARLY, also_trained=None), Code.WASTED),
    "never validated": (run([]), Code.INCONCLUSIVE),
}


@pytest.mark.parametrize("name", CASES)
def test_first_matching_rule_decides(name: str) -> None:
    evidence, code = CASES[name]
    verdict = judge(evidence)
    assert verdict.code is code, verdict.because


def test_wasted_gives_iteration_and_shares() -> None:
    verdict = judge(run(EARLY))
    assert (verdict.good_from, verdict.best) == (100, 800)
    assert verdict.share_after_good == pytest.approx(0.9)
    assert verdict.share_after_best == pytest.approx(0.2)


def test_paired_difference_has_its_own_error() -> None:
    # 0.015 above: within the best's own error of 0.02, but not within that of the paired difference
    losses = [3.0, 0.515, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.5, 0.6]
    assert judge(run(losses, error=0.005)).code is Code.OK
    assert judge(run(losses, error=0.005, paired=False)).code is Code.WASTED


def test_inconclusive_keeps_other_verdict() -> None:
    verdict = judge(run(EARLY[:4], rows=12, also_trained=2))
    assert verdict.code is Code.INCONCLUSIVE
    assert verdict.otherwise is Code.WASTED
    assert judge(run([])).otherwise is None


def test_verdict_texts_golden() -> None:
    lines = []
    for name, (evidence, _) in CASES.items():
        verdict = judge(evidence)
        lines += [f"{name}: {verdict.code}", f"  {verdict.because}"]
        if verdict.otherwise is not None:
            lines.append(f"  otherwise {verdict.otherwise}: {verdict.otherwise_because}")
        lines.append(f"  advice: {advice(verdict, evidence, PLAN)}")
    assert_golden("\n".join([*lines, ""]), Path(__file__).parent / "golden" / "verdicts.txt")


def test_advice_changes_the_learning_rate() -> None:
    evidence = run(EARLY)
    spiked = dataclasses.replace(PLAN, spiked=True)
    assert "`learning_rate: 0.0001`" in advice(judge(evidence), evidence, spiked)
    nothing = run([1.0, 1.001, 0.999, 1.0, 1.002, 1.0])
    assert "a larger learning rate" in advice(judge(nothing), nothing, PLAN)


def test_advice_mentions_the_schedule() -> None:
    evidence = run(FALLING)
    text = advice(judge(evidence), evidence, dataclasses.replace(PLAN, scheduled=True))
    assert "`iters: 2000`" in text
    assert "`lr_schedule`" in text


def test_advice_asks_for_missing_evidence() -> None:
    evidence = run(EARLY[:4], rows=12, also_trained=2)
    text = advice(judge(evidence), evidence, PLAN)
    assert all(part in text for part in ("50 rows", "train.jsonl", "`steps_per_eval: 100`"))


_losses = st.lists(st.floats(min_value=0.0, max_value=20.0), min_size=1, max_size=40)


@given(_losses, st.integers(1, 200), st.floats(0.0, 1.0), st.booleans())
def test_any_run_gets_one_valid_verdict(losses: list[float], rows: int, error: float, paired: bool) -> None:
    evidence = run(losses, rows=rows, error=error, paired=paired)
    verdict = judge(evidence)
    best = best_of(evidence.points)
    assert best is not None
    assert verdict.best == best.iteration
    assert verdict.good_from is not None
    assert verdict.good_from <= best.iteration
    assert (verdict.code is Code.INCONCLUSIVE) == (rows < 50 or len(losses) < 5)
    assert verdict.share_after_best is None or 0 <= verdict.share_after_best <= 1
    assert advice(verdict, evidence, PLAN).endswith(".")


@given(_losses.filter(lambda losses: len(losses) >= 5))
def test_more_rows_make_verdict_conclusive(losses: list[float]) -> None:
    few, many = judge(run(losses, rows=49)), judge(run(losses, rows=50))
    assert few.code is Code.INCONCLUSIVE
    assert few.otherwise is many.code
