"""What stays on the disk while a run goes on."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from jobs.retention import CheckpointFact, Fate, plan
from jobs.spec import Keep

KEEP = Keep()

losses = st.none() | st.floats(min_value=0.01, max_value=20) | st.just(math.nan) | st.just(math.inf)
runs = st.lists(st.tuples(st.integers(1, 2000), losses), max_size=60, unique_by=lambda pair: pair[0])


def facts_of(run: list[tuple[int, float | None]]) -> list[CheckpointFact]:
    return [CheckpointFact(iteration=iteration, validation_loss=loss) for iteration, loss in run]


def kept(fates: list[Fate]) -> set[int]:
    return {fate.iteration for fate in fates if fate.kept}


def test_the_last_two_and_the_best_stay() -> None:
    facts = facts_of([(100, 3.0), (200, 1.0), (300, 2.0), (400, None), (500, 1.5)])
    fates = plan(facts, keep=KEEP, iters=100_000)
    assert kept(fates) == {200, 400, 500}
    assert {fate.iteration: fate.because for fate in fates} == {
        100: "newer ones verify",
        200: "best by validation",
        300: "newer ones verify",
        400: "one of the last",
        500: "one of the last",
    }


def test_of_equally_good_ones_the_earliest_is_the_best() -> None:
    assert 100 in kept(plan(facts_of([(100, 1.0), (200, 1.0), (300, 2.0), (400, 2.0)]), keep=KEEP, iters=100_000))


def test_a_tenth_of_the_run_leaves_one_adapter() -> None:
    facts = facts_of([(iteration, None) for iteration in range(20, 1001, 20)])
    fates = plan(facts, keep=KEEP, iters=1000)
    assert [fate.iteration for fate in fates if fate.adapter_kept] == list(range(100, 1001, 100))


def test_no_milestones_where_none_are_wanted() -> None:
    fates = plan(
        facts_of([(iteration, None) for iteration in range(10, 200, 10)]), keep=Keep(milestones="0%"), iters=200
    )
    assert not any(fate.adapter_kept for fate in fates)


@given(runs)
def test_the_newest_and_the_best_always_stay(run: list[tuple[int, float | None]]) -> None:
    fates = plan(facts_of(run), keep=KEEP, iters=2000)
    scored = [(loss, iteration) for iteration, loss in run if loss is not None and math.isfinite(loss)]
    must = {max(iteration for iteration, _ in run)} if run else set()
    assert must | ({min(scored)[1]} if scored else set()) <= kept(fates)


@given(runs)
def test_deciding_again_changes_nothing(run: list[tuple[int, float | None]]) -> None:
    first = plan(facts_of(run), keep=KEEP, iters=2000)
    adapters = {fate.iteration for fate in first if fate.adapter_kept}
    left = [(iteration, loss) for iteration, loss in run if iteration in kept(first)]
    again = plan(facts_of(left), adapters=adapters, keep=KEEP, iters=2000)
    assert kept(again) == kept(first)
    assert {fate.iteration for fate in again if fate.adapter_kept} <= adapters


@given(st.integers(1, 50), st.integers(1000, 20_000))
def test_what_is_kept_does_not_grow_with_the_length_of_the_run(every: int, iters: int) -> None:
    present: list[CheckpointFact] = []
    adapters: set[int] = set()
    for iteration in range(every, iters + 1, max(every, iters // 300)):
        present.append(CheckpointFact(iteration=iteration, validation_loss=5.0 - iteration / iters))
        fates = plan(present, adapters=adapters, keep=KEEP, iters=iters)
        adapters |= {fate.iteration for fate in fates if fate.adapter_kept}
        present = [fact for fact in present if fact.iteration in kept(fates)]
    assert len(present) <= 3
    assert len(adapters) <= 10
