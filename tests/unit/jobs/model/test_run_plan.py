"""run_plan.json: what a run is trained under."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.model.errors import ConfigInvalid
from jobs.model.run_plan import RunPlan, Stage, from_json, to_json
from jobs.model.spec import JobSpec

STAGES = st.builds(
    Stage,
    first_example=st.integers(0, 10**9),
    batch_size=st.integers(1, 512),
    grad_accumulation_steps=st.integers(1, 64),
    grad_checkpoint=st.booleans(),
    max_seq_length=st.integers(2, 1 << 20),
    learning_rate_factor=st.floats(0.001, 1.0),
    salt=st.integers(0, 2**31),
    segment=st.none() | st.integers(1, 10**6),
    because=st.text(),
)


@given(stages=st.lists(STAGES, min_size=1, max_size=4))
def test_a_run_plan_comes_back_as_it_was_written(stages: list[Stage]) -> None:
    first = dataclasses.replace(stages[0], first_example=0)
    run_plan = RunPlan(stages=(first, *stages[1:]))
    assert from_json(json.dumps(to_json(run_plan))) == run_plan


def test_the_first_stage_is_what_the_user_asked_for() -> None:
    spec = JobSpec(batch_size=3, grad_accumulation_steps=5, grad_checkpoint=True, max_seq_length=99)
    [stage] = RunPlan.requested(spec).stages
    assert (stage.first_example, stage.salt, stage.learning_rate_factor, stage.because) == (0, 0, 1.0, "requested")
    assert (stage.batch_size, stage.grad_accumulation_steps) == (3, 5)
    assert (stage.grad_checkpoint, stage.max_seq_length) == (True, 99)


def test_a_run_plan_of_a_newer_lq_is_refused_with_both_versions() -> None:
    with pytest.raises(ConfigInvalid, match=r"run_plan\.json has version 3; this lq reads up to version 2"):
        from_json('{"version": 3, "stages": [], "new": 1}')


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "7",
        '"run plan"',
        "{}",
        '{"version": 1}',
        '{"version": 1, "stages": 5}',
        '{"version": 1, "stages": [5]}',
        '{"version": 1, "stages": [{}]}',
        '{"version": 1, "stages": [{"batch_size": 4, "gear": 2}]}',
        '{"version": 1, "stages": []}',
    ],
)
def test_what_is_no_run_plan_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        from_json(text)
    assert str(caught.value).startswith("run_plan.json ")
    assert "\n" not in str(caught.value)


def test_a_run_plan_that_does_not_begin_at_the_beginning_is_refused() -> None:
    stage = dataclasses.asdict(STAGE) | {"first_example": 4}
    with pytest.raises(ConfigInvalid, match="no stage that begins at the beginning"):
        from_json(json.dumps({"version": 1, "stages": [stage]}))


STAGE = Stage(first_example=0, batch_size=4, grad_accumulation_steps=1, grad_checkpoint=False, max_seq_length=64)


def run_plan(*beginnings: int) -> RunPlan:
    """Stages that begin after so many examples, in the order in which they were decided."""
    return RunPlan(stages=tuple(dataclasses.replace(STAGE, first_example=example) for example in beginnings))


@pytest.mark.parametrize(
    ("beginnings", "example", "stage", "until"),
    [
        ((0,), 0, 0, None),
        ((0,), 10**9, 0, None),
        ((0, 40), 39, 0, 40),
        ((0, 40), 40, 1, None),
        ((0, 0), 0, 1, None),  # the settings asked for were never tried: they are known not to fit
        ((0, 40, 40), 40, 2, None),  # two rungs from the same checkpoint
        ((0, 80, 40), 60, 2, None),  # the later decision took it further back
        ((0, 80, 40), 39, 0, 40),
        ((0, 80, 40), 100, 2, None),
    ],
)
def test_the_last_stage_decided_that_has_begun_holds(
    beginnings: tuple[int, ...], example: int, stage: int, until: int | None
) -> None:
    assert run_plan(*beginnings).at(example) == stage
    assert run_plan(*beginnings).holds_until(example) == until


@pytest.mark.parametrize(
    ("beginnings", "example", "stage", "on_it"),
    [
        ((0,), 100, 0, True),
        ((0,), 100, 1, False),  # of a stage the run plan does not have
        ((0, 40), 40, 0, True),  # the very place where the next stage begins
        ((0, 40), 36, 0, True),
        ((0, 40), 44, 0, False),  # left behind: the new stage begins earlier
        ((0, 40), 44, 1, True),
        ((0, 80, 40), 60, 1, False),
        ((0, 80, 40), 60, 2, True),
        ((0, 40, 80), 60, 1, True),
        ((0, 40, 80), 84, 1, False),
        ((0, 0), 4, 0, False),
        ((0, 0), 0, 0, True),
    ],
)
def test_a_state_left_behind_by_a_later_stage_is_not_on_the_run_plan(
    beginnings: tuple[int, ...], example: int, stage: int, on_it: bool
) -> None:
    assert run_plan(*beginnings).leads_to(example, stage) is on_it


@given(beginnings=st.lists(st.integers(0, 400), max_size=6).map(lambda later: (0, *later)), example=st.integers(0, 500))
def test_where_a_stage_holds_its_own_states_are_on_the_run_plan(beginnings: tuple[int, ...], example: int) -> None:
    whole = run_plan(*beginnings)
    stage = whole.at(example)
    assert whole.leads_to(example, stage)
    until = whole.holds_until(example)
    assert until is None or whole.at(until - 1) == stage != whole.at(until)


def test_positions_count_job_file_batches() -> None:
    smaller = STAGE.continued(40, because="out_of_memory", batch_size=2, grad_accumulation_steps=2)
    plan = RunPlan(stages=(STAGE, smaller))
    assert (plan.example_of(15), plan.iteration_of(60), plan.iteration_of(63)) == (60, 15, 15)
    assert [plan.index_at(iteration) for iteration in (0, 9, 10)] == [0, 0, 1]
    assert plan.stage_at(10) == smaller
