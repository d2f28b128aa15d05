"""Retention of checkpoints during a run."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.loss.alarms import Alarm, LossFinding
from jobs.model.run_plan import RunPlan, Stage
from jobs.model.spec import JobSpec, Keep, LqSpec
from jobs.policies.decision import History
from jobs.policies.retention import CLEAN_ITERATIONS, CheckpointFact, RetentionDecision, plan
from jobs.policies.rollback import RollbackCandidate, is_point, most_points, reach, roll_back


def spec_of(iters: int, *, keep: Keep | None = None, **changes: Any) -> JobSpec:
    return JobSpec(iters=iters, lq=LqSpec(keep=keep or Keep()), **changes)


def decided(
    facts: list[CheckpointFact], spec: JobSpec, run_plan: RunPlan | None = None, **more: Any
) -> list[RetentionDecision]:
    return plan(facts, spec=spec, run_plan=run_plan or RunPlan.requested(spec), **more)


losses = st.none() | st.floats(min_value=0.01, max_value=20) | st.just(math.nan) | st.just(math.inf)
runs = st.lists(st.tuples(st.integers(1, 2000), losses), max_size=60, unique_by=lambda pair: pair[0])
specs = st.builds(
    spec_of,
    st.just(2000),
    save_every=st.sampled_from([7, 50, 100, 500]),
    steps_per_report=st.sampled_from([1, 10, 25]),
    grad_accumulation_steps=st.sampled_from([1, 4, 32]),
)


def facts_of(run: list[tuple[int, float | None]]) -> list[CheckpointFact]:
    return [CheckpointFact(iteration=iteration, validation_loss=loss) for iteration, loss in run]


def kept(decisions: list[RetentionDecision]) -> set[int]:
    return {each.iteration for each in decisions if each.kept}


def test_last_best_and_rollback_points_stay() -> None:
    facts = facts_of([(100, 3.0), (200, 1.0), (300, 2.0), (400, None), (500, 1.5), (600, 1.7), (700, 1.7), (800, 1.8)])
    decisions = decided(facts, spec_of(100_000))
    assert {each.iteration: each.because for each in decisions} == {
        100: "newer checkpoints verify",
        200: "best by validation",
        300: "newer checkpoints verify",
        400: "newer checkpoints verify",
        500: "rollback point",
        600: "rollback point",
        700: "one of the last and rollback point",
        800: "one of the last and rollback point",
    }


def test_ended_run_needs_no_rollback_points() -> None:
    facts = facts_of([(iteration, 1.0 if iteration == 300 else 2.0) for iteration in range(100, 1001, 100)])
    assert kept(decided(facts, spec_of(1000), ended=True)) == {300, 900, 1000}


def test_suspicion_keeps_everything() -> None:
    facts = facts_of([(iteration, None) for iteration in range(10, 1001, 10)])
    decisions = decided(facts, spec_of(1000), suspicion=True)
    assert all(each.kept and "suspicion" in each.because for each in decisions)


def test_rollback_target_is_kept_for_a_while() -> None:
    spec = spec_of(100_000)
    stage = (
        RunPlan.requested(spec).stages[0].continued(500 * spec.batch_size, because="spike", rollback=1, first_flag=970)
    )
    run_plan = RunPlan(stages=(*RunPlan.requested(spec).stages, stage))

    def at(newest: int) -> set[int]:
        return kept(decided(facts_of([(500, None), (newest - 50, None), (newest, None)]), spec, run_plan))

    assert 500 in at(970 + CLEAN_ITERATIONS - 1)
    assert 500 not in at(970 + CLEAN_ITERATIONS)


def test_best_is_the_first_of_equals() -> None:
    facts = facts_of([(100, 1.0), (200, 1.0), (1000, 2.0), (2000, 2.0)])
    assert kept(decided(facts, spec_of(100_000))) == {100, 1000, 2000}


def test_milestone_keeps_one_adapter() -> None:
    facts = facts_of([(iteration, None) for iteration in range(20, 1001, 20)])
    decisions = decided(facts, spec_of(1000))
    assert [each.iteration for each in decisions if each.adapter_kept] == list(range(100, 1001, 100))


def test_zero_milestones_keep_no_adapter() -> None:
    facts = facts_of([(iteration, None) for iteration in range(10, 200, 10)])
    assert not any(each.adapter_kept for each in decided(facts, spec_of(200, keep=Keep(milestones="0%"))))


@given(runs, specs)
def test_newest_and_best_are_always_kept(run: list[tuple[int, float | None]], spec: JobSpec) -> None:
    decisions = decided(facts_of(run), spec)
    scored = [(loss, iteration) for iteration, loss in run if loss is not None and math.isfinite(loss)]
    must = {max(iteration for iteration, _ in run)} if run else set()
    assert must | ({min(scored)[1]} if scored else set()) <= kept(decisions)


@given(runs, specs, st.booleans())
def test_retention_is_idempotent(run: list[tuple[int, float | None]], spec: JobSpec, ended: bool) -> None:
    first = decided(facts_of(run), spec, ended=ended)
    adapters = {each.iteration for each in first if each.adapter_kept}
    left = [(iteration, loss) for iteration, loss in run if iteration in kept(first)]
    again = decided(facts_of(left), spec, adapters=adapters, ended=ended)
    assert kept(again) == kept(first)
    assert {each.iteration for each in again if each.adapter_kept} <= adapters


@given(st.integers(1, 50), st.integers(1000, 20_000))
def test_kept_count_is_bounded(every: int, iters: int) -> None:
    spec = spec_of(iters, save_every=every)
    present: list[CheckpointFact] = []
    adapters: set[int] = set()
    for iteration in range(every, iters + 1, max(every, iters // 300)):
        present.append(CheckpointFact(iteration=iteration, validation_loss=5.0 - iteration / iters))
        decisions = decided(present, spec, adapters=adapters)
        adapters |= {each.iteration for each in decisions if each.adapter_kept}
        present = [fact for fact in present if fact.iteration in kept(decisions)]
        assert len(present) <= spec.lq.keep.last + spec.lq.keep.best + most_points(spec)
    assert len(adapters) <= 10


def pruned(spec: JobSpec, present: list[int], looks: set[int]) -> list[int]:
    """Return the checkpoints left if the worker prunes only after those of `looks` were written."""
    there: list[int] = []
    for iteration in present:
        there.append(iteration)
        if iteration in looks:
            left = kept(decided(facts_of([(at, None) for at in there]), spec))
            there = [at for at in there if at in left]
    return there


def back(spec: JobSpec, there: list[int], first_flag: int, detected: int, before: list[Stage]) -> int:
    finding = LossFinding(alarm=Alarm.SPIKE, iteration=detected, first_flag=first_flag, text="", evidence={})
    candidates = [RollbackCandidate(iteration=at, updates=at, best=False, healthy=True) for at in there]
    stages = [*RunPlan.requested(spec).stages, *before]
    history = History(stages=stages, candidates=candidates, batches_per_epoch=100)
    return roll_back(finding, spec, history, before=len(before)).target


@settings(max_examples=300)
@given(specs, st.integers(300, 2000), st.integers(0, 3), st.sets(st.integers(1, 2000)), st.data())
def test_rollback_target_ignores_timing(
    spec: JobSpec, detected: int, lag: int, extra: set[int], data: st.DataObject
) -> None:
    """The target does not depend on when the worker pruned, or on checkpoints left by a pause or the clock."""
    detected -= detected % spec.steps_per_report
    first_flag = detected - lag * spec.steps_per_report
    points = [at for at in range(1, detected + 1) if is_point(at, spec)]
    others = {at - at % spec.grad_accumulation_steps for at in extra if at <= detected} - {0}
    everything = sorted({*points, *others})
    looks = data.draw(st.sets(st.sampled_from(everything))) if everything else set()
    target = back(spec, points, first_flag, detected, [])
    assert back(spec, pruned(spec, everything, looks), first_flag, detected, []) == target
    stage = (
        RunPlan.requested(spec)
        .stages[0]
        .continued(target * spec.batch_size, because="spike", rollback=1, first_flag=first_flag, salt=1)
    )
    further = back(spec, points, first_flag, detected, [stage])
    assert back(spec, pruned(spec, everything, looks), first_flag, detected, [stage]) == further
    assert further <= target <= max(0, first_flag - 100)
    assert target == 0 or target > detected - reach(spec)
