"""The verdict: its rules, its texts, and the advice."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.model.spec import JobSpec, LrSchedule
from jobs.policies.verdict import Code, Difference, Evidence, Point, RequestedRun, advice, best_of, judge
from tests.golden import assert_golden

SPEC = JobSpec(iters=1000, learning_rate=2e-4, steps_per_eval=100)
PLAN = RequestedRun(
    lq="lq", job_id=7, spec=SPEC, succeeded=True, published=600, epochs=40.0, spiked=False, guilty=False
)


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
        stuck_from=None,
        iterations=100 * (len(losses) - 1),
        points=points,
        last_stretch=difference(losses[-1] - losses[-3]) if len(losses) > 2 else None,
        train_after_best=None,
        train_end=None,
        flagged=False,
        also_trained=0,
        valid_rows=rows,
    )
    return dataclasses.replace(evidence, **more)  # type: ignore[arg-type]


FALLING = [3.0, 2.5, 2.0, 1.8, 1.6, 1.4, 1.3, 1.2, 1.1, 1.0, 0.9]
SETTLED = [3.0, 2.5, 2.0, 1.8, 1.6, 1.4, 1.1, 1.0, 0.99, 0.981, 0.98]
UP_AGAIN = [3.0, 2.0, 1.5, 1.2, 1.1, 1.0, 0.9, 1.0, 1.1, 1.2, 1.3]
EARLY = [3.0, 0.5, 0.52, 0.55, 0.5, 0.53, 0.51, 0.5, 0.495, 0.51, 0.5]
SLOW = [3.0, 2.998, 2.996, 2.994, 2.992, 2.99]
STILL: dict[str, Any] = {"train_after_best": difference(-0.2), "train_end": 0.6}
ROSE: dict[str, Any] = {"train_after_best": difference(0.1), "train_end": 1.1}
FLAT: dict[str, Any] = {"train_after_best": difference(0.01), "train_end": 0.8}

CASES = {
    "the guard ended it": (run(FALLING, guarded="3 rollbacks"), Code.DIVERGED),
    "the guard ended it before any validation": (run([], guarded="3 rollbacks"), Code.DIVERGED),
    "it ended in NaN": (run([*FALLING[:-1], math.nan]), Code.DIVERGED),
    "validation rises while train falls": (run(UP_AGAIN, **STILL), Code.OVERFIT),
    "validation rises while train is memorized": (run(UP_AGAIN, **FLAT | {"train_end": 0.02}), Code.OVERFIT),
    "validation rises and train does not fall": (run(UP_AGAIN, **FLAT), Code.REGRESSED),
    "validation and train rise": (run(UP_AGAIN, **ROSE), Code.REGRESSED),
    "validation rises while reports are flagged": (run(UP_AGAIN, **STILL, flagged=True), Code.REGRESSED),
    "validation rises, and few reports follow": (run(UP_AGAIN), Code.REGRESSED),
    "worse than before training": (run([1.0, 1.2, 1.4, 1.5, 1.6, 1.7], **ROSE), Code.REGRESSED),
    "no gradient": (run(SETTLED, stuck_from=300), Code.DIVERGED),
    "no gradient, and worse at the end": (run(UP_AGAIN, **ROSE, stuck_from=300), Code.DIVERGED),
    "validation rises within its interval": (run([*SETTLED, 0.99], **STILL), Code.OK),
    "as good early": (run(EARLY), Code.WASTED),
    "as good early, and worse at the end": (run([*EARLY, 0.9], **STILL), Code.OVERFIT),
    "nothing learned": (run([1.0, 1.001, 0.999, 1.0, 1.002, 1.0]), Code.WASTED),
    "still falling": (run(FALLING), Code.UNDERTRAINED),
    "still falling, but by almost nothing": (
        run(SLOW, error=0.0001, last_stretch=difference(-0.002, 0.0001)),
        Code.UNDERTRAINED,
    ),
    "best is last, but it has settled": (run(SETTLED), Code.OK),
    "too few rows": (run(EARLY, rows=49), Code.INCONCLUSIVE),
    "val_batches measures too few rows": (run(EARLY, rows=16, valid_rows=53), Code.INCONCLUSIVE),
    "measured rows also trained": (run(EARLY, rows=16, valid_rows=53, also_trained=9), Code.INCONCLUSIVE),
    "just enough rows": (run(EARLY, rows=50), Code.WASTED),
    "too few validations": (run(FALLING[:4]), Code.INCONCLUSIVE),
    "just enough validations": (run(FALLING[:5]), Code.UNDERTRAINED),
    "validation rows also trained": (run(EARLY, also_trained=1), Code.INCONCLUSIVE),
    "one of a hundred also trained": (run(EARLY, rows=100, also_trained=1), Code.WASTED),
    "not checked for such rows": (run(EARLY, also_trained=None), Code.WASTED),
    "never validated": (run([], valid_rows=None), Code.INCONCLUSIVE),
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
    losses = [3.0, 0.515, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.5, 0.502]
    assert judge(run(losses, error=0.005)).code is Code.OK
    assert judge(run(losses, error=0.005, paired=False)).code is Code.WASTED


def test_inconclusive_keeps_other_verdict() -> None:
    verdict = judge(run([3.0, 0.5, 0.505, 0.5], rows=12, also_trained=2))
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


def commands(verdict_of: Evidence, plan: RequestedRun = PLAN, **spec: Any) -> str:
    """Return the advice on a run whose job file has these settings."""
    return advice(judge(verdict_of), verdict_of, dataclasses.replace(plan, spec=SPEC.model_copy(update=spec)))


COSINE = LrSchedule(name="cosine_decay", arguments=(2e-4, 1000))
LINEAR = LrSchedule(name="linear_schedule", arguments=(2e-4, 1e-5, 1000), warmup=10)
GROWING = LrSchedule(name="exponential_decay", arguments=(2e-4, 1.02))
STEPS = LrSchedule(name="step_decay", arguments=(2e-4, 0.5, 100))


@pytest.mark.parametrize(
    ("evidence", "changes", "spec", "command"),
    [
        (run(UP_AGAIN, **ROSE), {}, {}, "lq retry 7 --set learning_rate=0.0001`"),
        (run(UP_AGAIN, **ROSE), {}, {"lr_schedule": COSINE}, "--set 'lr_schedule.arguments[0]=0.0001'`"),
        (run(UP_AGAIN, **ROSE), {}, {"lr_schedule": LINEAR}, "--set 'lr_schedule.arguments[1]=5e-06'`"),
        (run(UP_AGAIN, **ROSE), {}, {"lr_schedule": GROWING}, "--set 'lr_schedule.arguments[1]=1.0'`"),
        (run(FALLING, guarded="3 rollbacks"), {"lowest_factor": 0.25}, {}, "--set learning_rate=2.5e-05 "),
        (run(UP_AGAIN, **STILL), {}, {}, "lq retry 7 --set iters=600`"),
        (run(UP_AGAIN, **STILL), {}, {"lr_schedule": COSINE}, "--set 'lr_schedule.arguments[1]=600'`"),
        (run(EARLY), {"spiked": True}, {}, "lq retry 7 --set iters=100 --set learning_rate=0.0001`"),
        (run([1.0, 1.001, 0.999, 1.0, 1.002, 1.0]), {}, {}, "lq retry 7 --set learning_rate=0.002`"),
        (run(FALLING), {}, {}, "lq extend 7 --iters 2000`"),
        (CASES["still falling, but by almost nothing"][0], {}, {}, "lq retry 7 --set learning_rate=0.002`"),
        (run(FALLING), {}, {"lr_schedule": STEPS}, "lq extend 7 --iters 2000`"),
        (run(FALLING), {}, {"lr_schedule": LINEAR}, "--set iters=2000 --set 'lr_schedule.arguments[2]=2000'`"),
        (run(FALLING), {"succeeded": False}, {}, "`lq retry 7`"),
        (run(FALLING), {"lq": "LQ_HOME=/x lq"}, {}, "`LQ_HOME=/x lq extend 7 "),
        (run(EARLY, rows=16, valid_rows=53), {}, {"val_batches": 8}, "lq retry 7 --set val_batches=-1`"),
        (run(FALLING[:4]), {}, {}, "lq retry 7 --set steps_per_eval=100`"),
    ],
)
def test_advice_is_a_command(evidence: Evidence, changes: dict[str, Any], spec: dict[str, Any], command: str) -> None:
    assert command in commands(evidence, dataclasses.replace(PLAN, **changes), **spec)


def test_advice_asks_for_missing_evidence() -> None:
    text = commands(run(EARLY[:4], rows=12, also_trained=2))
    assert all(part in text for part in ("50 rows", "train.jsonl", "steps_per_eval=100"))


def test_counts_name_what_was_measured() -> None:
    because = judge(run(EARLY, rows=16, valid_rows=53, also_trained=9)).because
    assert all(fact in because for fact in ("16 of 53 rows", "val_batches", "9 of 16 measured", "56.2 %"))
    assert "53" not in judge(run(EARLY, rows=49)).because


_losses = st.lists(st.floats(min_value=0.0, max_value=20.0), min_size=1, max_size=40)


@given(st.sampled_from(sorted(CASES)), st.booleans(), st.booleans())
def test_stuck_run_is_never_anything_else(name: str, flagged: bool, spiked: bool) -> None:
    """A model that no longer learns needs no rows and no longer run."""
    evidence = dataclasses.replace(CASES[name][0], stuck_from=300, flagged=flagged)
    verdict = judge(evidence)
    text = advice(verdict, evidence, dataclasses.replace(PLAN, spiked=spiked))
    assert verdict.code is Code.DIVERGED
    assert "learning_rate=0.0001" in text
    assert "rows" not in text


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
