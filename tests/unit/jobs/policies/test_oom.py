"""The out-of-memory ladder: what is tried next, and that the updates stay what the user asked for."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.model.run_plan import Stage
from jobs.policies.decision import History
from jobs.policies.oom import LadderStep, ladder, next_step, user_changes

ASKED = Stage(first_example=0, batch_size=8, grad_accumulation_steps=2, grad_checkpoint=False, max_seq_length=2048)


def step(stage: Stage, **changes: Any) -> LadderStep:
    """Ask for the next step, with unknown memory unless a test sets it."""
    options = {name: changes.pop(name, name == "may_repeat") for name in ("may_repeat", "allow_truncation")}
    return next_step(stage, History(**changes), **options)


def climbed(stage: Stage, **changes: Any) -> list[Stage]:
    """Climb to the top."""
    stages = [stage]
    while (above := step(stages[-1], **changes).stage) is not None:
        stages.append(above)
    return stages


def test_ladder_from_first_to_last_rung() -> None:
    stages = climbed(ASKED)
    assert [(stage.grad_checkpoint, stage.batch_size, stage.grad_accumulation_steps) for stage in stages] == [
        (False, 8, 2),
        (True, 8, 2),
        (True, 4, 4),
        (True, 2, 8),
        (True, 1, 16),
    ]
    assert {stage.max_seq_length for stage in stages} == {2048}
    changes, effect = stages[2].because.split("; ")
    assert changes.split(", ") == ["out_of_memory: batch 8 -> 4", "accumulation 2 -> 4"]
    assert effect.endswith("batch stays 16")


@given(
    batch=st.integers(1, 512), accumulation=st.integers(1, 64), checkpoint=st.booleans(), start=st.integers(0, 10**6)
)
def test_rows_per_update_stay_the_same(batch: int, accumulation: int, checkpoint: bool, start: int) -> None:
    asked = dataclasses.replace(
        ASKED, batch_size=batch, grad_accumulation_steps=accumulation, grad_checkpoint=checkpoint
    )
    stages = climbed(asked, next_example=start)
    for stage in stages[1:]:
        assert stage.batch_size * stage.grad_accumulation_steps == batch * accumulation
        assert batch % stage.batch_size == 0, "micro-batches cut an iteration evenly"
        assert stage.first_example == start
        assert (stage.salt, stage.learning_rate_factor, stage.segment) == (0, 1.0, None)
    assert stages[-1].batch_size == 1
    assert stages[-1].grad_checkpoint


@pytest.mark.parametrize(("batch", "sizes"), [(6, [3, 1]), (5, [1]), (12, [6, 3, 1]), (9, [3, 1]), (1, [])])
def test_batch_is_cut_to_a_divisor(batch: int, sizes: list[int]) -> None:
    first = dataclasses.replace(ASKED, batch_size=batch, grad_checkpoint=True)
    assert [stage.batch_size for stage in climbed(first)[1:]] == sizes


def test_repeats_if_enough_memory_is_free() -> None:
    found = step(ASKED, peak_bytes=4_000_000_000, free_bytes=4_000_000_001)
    assert (found.stage, found.again) == (ASKED, True)


@pytest.mark.parametrize(
    "known",
    [
        {"peak_bytes": 4_000_000_000, "free_bytes": 4_000_000_000},
        {"peak_bytes": 4_000_000_000, "free_bytes": 9_000_000_000, "may_repeat": False},
        {"peak_bytes": None, "free_bytes": 9_000_000_000},
        {"peak_bytes": 4_000_000_000, "free_bytes": None},
    ],
)
def test_does_not_repeat_without_free_memory(known: dict[str, Any]) -> None:
    found = step(ASKED, **known)
    assert not found.again
    assert found.stage is not None
    assert found.stage.grad_checkpoint


def test_rows_are_cut_last_if_allowed() -> None:
    top = climbed(ASKED)[-1]
    assert step(top, lengths=(900, 500)).stage is None
    assert [stage.max_seq_length for stage in climbed(top, allow_truncation=True, lengths=(900, 500))] == [
        2048,
        900,
        500,
    ]
    assert "longer rows are cut" in step(top, allow_truncation=True, lengths=(900, 500)).text


def test_short_rows_are_not_cut() -> None:
    top = climbed(ASKED)[-1]
    assert climbed(top, allow_truncation=True, lengths=(4000, 2048)) == [top]
    assert climbed(top, allow_truncation=True, lengths=None) == [top]


def test_last_step_names_user_changes() -> None:
    text = step(climbed(ASKED)[-1]).text
    assert "max_seq_length (2048)" in text
    assert "allow_truncation" in text
    assert "\n" not in text


def test_ladder_lists_the_workers_steps() -> None:
    stages = [stage for stage, _ in ladder(ASKED, allow_truncation=True, lengths=(900, 500))]
    climb = climbed(ASKED, allow_truncation=True, lengths=(900, 500))[1:]
    assert [dataclasses.replace(stage, because="") for stage in climb] == [
        dataclasses.replace(stage, because="") for stage in stages
    ]


def test_user_changes_follow_least_harm() -> None:
    changes = list(user_changes(ASKED, rank=16, num_layers=16, cuts=((900, 0.01), (500, 0.05))))
    assert [(change.max_seq_length, change.rank, change.num_layers) for change in changes] == [
        (900, 16, 16),
        (500, 16, 16),
        (500, 8, 16),
        (500, 4, 16),
        (500, 4, 8),
        (500, 4, 4),
    ]
    assert changes[0].text.startswith("max_seq_length 900 (cuts 1.0% ")


def test_full_fine_tune_has_no_rank_change() -> None:
    assert all(change.rank is None for change in user_changes(ASKED, rank=None, num_layers=16, cuts=()))
