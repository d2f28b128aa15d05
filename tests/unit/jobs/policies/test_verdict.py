"""The verdict: which of the six a run gets, and that it says why in numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.policies.verdict import Code, Difference, Evidence, Point, RequestedRun, advice, best_of, judge

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
            iteration=100 * place,
            loss=loss,
            standard_error=0.02,
            rows=rows,
            minus_best=None if best is None else difference(loss - best, error, paired=paired),
        )
        for place, loss in enumerate(losses)
    ]
    usual = Evidence(
        guarded=None,
        iterations=100 * (len(losses) - 1),
        points=points,
        last_stretch=difference(losses[-1] - losses[-3]) if len(losses) > 2 else None,
        train_after_best=None,
        also_trained=0,
    )
    return dataclasses.replace(usual, **more)  # type: ignore[arg-type]


FALLING = [3.0, 2.5, 2.0, 1.8, 1.6, 1.4, 1.3, 1.2, 1.1, 1.0, 0.9]
SETTLED = [3.0, 2.5, 2.0, 1.8, 1.6, 1.4, 1.1, 1.0, 0.99, 0.981, 0.98]
UP_AGAIN = [3.0, 2.0, 1.5, 1.2, 1.1, 1.0, 0.9, 1.0, 1.1, 1.2, 1.3]
EARLY = [3.0, 0.5, 0.52, 0.55, 0.5, 0.53, 0.51, 0.5, 0.495, 0.51, 0.5]
STILL = difference(-0.2)

CASES = {
    "the guard ended it": (run(FALLING, guarded="went back 3 times"), Code.DIVERGED),
    "the guard ended it before any validation": (run([], guarded="went back 3 times"), Code.DIVERGED),
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
    "validation rows among the training rows": (run(EARLY, also_trained=1), Code.INCONCLUSIVE),
    "one in a hundred of them": (run(EARLY, rows=100, also_trained=1), Code.WASTED),
    "nobody looked for such rows": (run(EARLY, also_trained=None), Code.WASTED),
    "never validated": (run([]), Code.INCONCLUSIVE),
}


@pytest.mark.parametrize("name", CASES)
def test_the_first_rule_that_holds_decides(name: str) -> None:
    found, code = CASES[name]
    verdict = judge(found)
    assert verdict.code is code, verdict.because
    assert verdict.because.endswith(".")


def test_wasted_says_since_when_and_how_much_came_after() -> None:
    verdict = judge(run(EARLY))
    assert (verdict.good_from, verdict.best) == (100, 800)
    assert verdict.because == (
        "The checkpoint of iteration 100 (0.5000) is within one standard error of the best, that of iteration 800 "
        "(0.4950); the difference is +0.0050 (95 % interval -0.0146 to +0.0246); 90 % of the iterations came after it."
    )
    assert verdict.share_after_good == pytest.approx(0.9)
    assert verdict.share_after_best == pytest.approx(0.2)


def test_a_difference_by_rows_is_judged_by_its_own_error_and_any_other_by_that_of_the_best() -> None:
    # 0.015 above: within the best's own error of 0.02, but not within that of the paired difference
    losses = [3.0, 0.515, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.5, 0.6]
    assert judge(run(losses, error=0.005)).code is Code.OK
    assert judge(run(losses, error=0.005, paired=False)).code is Code.WASTED


def test_what_cannot_be_told_is_still_said_with_its_reason() -> None:
    verdict = judge(run(EARLY[:4], rows=12, also_trained=2))
    assert verdict.code is Code.INCONCLUSIVE
    assert verdict.because == (
        "The validation set has 12 rows, fewer than 50; 4 validations, fewer than 5; 2 of 12 validation rows (16.7 %) "
        "were trained on as well: too little to tell more."
    )
    assert verdict.otherwise is Code.WASTED
    assert judge(run([])).otherwise is None


ADVICE = {
    Code.DIVERGED: "`learning_rate: 0.0001` with `lq: {grad_clip: 1.0}`",
    Code.OVERFIT: "`iters: 600` (there each row had been seen 24 times), or add rows",
    Code.WASTED: "`iters: 100`, or let `lq: {early_stop: {min_delta: 1se}}` end it; to get further, add rows",
    Code.UNDERTRAINED: "`iters: 2000`, or a new job whose `resume_adapter_file`",
    Code.OK: "no change",
    Code.INCONCLUSIVE: "Hold back at least 50 rows in valid.jsonl",
}


@pytest.mark.parametrize("code", Code)
def test_every_verdict_has_its_advice(code: Code) -> None:
    found = {
        Code.DIVERGED: run(FALLING, guarded="x"),
        Code.OVERFIT: run(UP_AGAIN, train_after_best=STILL),
        Code.WASTED: run(EARLY),
        Code.UNDERTRAINED: run(FALLING),
        Code.OK: run(SETTLED),
        Code.INCONCLUSIVE: run(EARLY, rows=3),
    }[code]
    verdict = judge(found)
    assert verdict.code is code
    assert ADVICE[code] in advice(verdict, found, PLAN)


def test_a_spike_asks_for_a_smaller_rate_and_no_gain_for_a_larger_one() -> None:
    found = run(EARLY)
    spiked = dataclasses.replace(PLAN, spiked=True)
    assert "`learning_rate: 0.0001`, because the loss spiked" in advice(judge(found), found, spiked)
    nothing = run([1.0, 1.001, 0.999, 1.0, 1.002, 1.0])
    assert "a larger learning rate" in advice(judge(nothing), nothing, PLAN)


def test_a_schedule_has_to_follow_the_iterations() -> None:
    found = run(FALLING)
    said = advice(judge(found), found, dataclasses.replace(PLAN, scheduled=True))
    assert "`iters: 2000`, with the length of `lr_schedule` changed alike" in said


def test_what_is_missing_is_asked_for() -> None:
    found = run(EARLY[:4], rows=12, also_trained=2)
    assert advice(judge(found), found, PLAN) == (
        "Hold back at least 50 rows in valid.jsonl and take the rows of valid.jsonl out of train.jsonl and validate "
        "more often, with `steps_per_eval: 100`."
    )


_losses = st.lists(st.floats(min_value=0.0, max_value=20.0), min_size=1, max_size=40)


@given(_losses, st.integers(1, 200), st.floats(0.0, 1.0), st.booleans())
def test_any_run_gets_one_verdict_whose_numbers_are_of_that_run(
    losses: list[float], rows: int, error: float, paired: bool
) -> None:
    found = run(losses, rows=rows, error=error, paired=paired)
    verdict = judge(found)
    best = best_of(found.points)
    assert best is not None
    assert verdict.best == best.iteration
    assert verdict.good_from is not None
    assert verdict.good_from <= best.iteration
    assert (verdict.code is Code.INCONCLUSIVE) == (rows < 50 or len(losses) < 5)
    assert verdict.share_after_best is None or 0 <= verdict.share_after_best <= 1
    assert advice(verdict, found, PLAN).endswith(".")


@given(_losses.filter(lambda losses: len(losses) >= 5))
def test_more_rows_and_validations_never_make_a_verdict_inconclusive(losses: list[float]) -> None:
    few, many = judge(run(losses, rows=49)), judge(run(losses, rows=50))
    assert few.code is Code.INCONCLUSIVE
    assert few.otherwise is many.code
