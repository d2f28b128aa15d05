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
def test_run_plan_survives_round_trip(stages: list[Stage]) -> None:
    first = dataclasses.replace(stages[0], first_example=0)
    run_plan = RunPlan(stages=(first, *stages[1:]))
    assert from_json(json.dumps(to_json(run_plan))) == run_plan


def test_first_stage_has_job_settings() -> None:
    spec = JobSpec(batch_size=3, grad_accumulation_steps=5, grad_checkpoint=True, max_seq_length=99)
    [stage] = RunPlan.requested(spec).stages
    assert (stage.first_example, stage.salt, stage.learning_rate_factor, stage.because) == (0, 0, 1.0, "requested")
    assert (stage.batch_size, stage.grad_accumulation_steps) == (3, 5)
    assert (stage.grad_checkpoint, stage.max_seq_length) == (True, 99)


@pytest.mark.parametrize("version", [1, 2, 4, "3"])
def test_other_run_plan_versions_refused(version: int | str) -> None:
    content = to_json(RunPlan(stages=(STAGE,)))
    assert content["version"] == 3
    with pytest.raises(ConfigInvalid, match=f"version {version}; this lq reads only version 3"):
        from_json(json.dumps(content | {"version": version}))


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
        '{"version": 3}',
        '{"version": 3, "stages": 5}',
        '{"version": 3, "stages": [5]}',
        '{"version": 3, "stages": [{}]}',
        '{"version": 3, "stages": [{"batch_size": 4, "gear": 2}]}',
        '{"version": 3, "stages": []}',
    ],
)
def test_invalid_run_plan_is_refused(text: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        from_json(text)
    assert str(caught.value).startswith("run_plan.json ")
    assert "\n" not in str(caught.value)


def test_first_stage_must_begin_at_zero() -> None:
    stage = dataclasses.asdict(STAGE) | {"first_example": 4}
    with pytest.raises(ConfigInvalid, match="first_example 0"):
        from_json(json.dumps({"version": 3, "stages": [stage]}))


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
def test_latest_decision_is_in_force(beginnings: tuple[int, ...], example: int, stage: int, until: int | None) -> None:
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
def test_abandoned_state_is_off_the_plan(beginnings: tuple[int, ...], example: int, stage: int, on_it: bool) -> None:
    assert run_plan(*beginnings).leads_to(example, stage) is on_it


@given(beginnings=st.lists(st.integers(0, 400), max_size=6).map(lambda later: (0, *later)), example=st.integers(0, 500))
def test_stage_in_force_leads_to_states(beginnings: tuple[int, ...], example: int) -> None:
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
