"""The out-of-memory ladder: what is tried next, and that the updates stay what the user asked for."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.model.run_plan import Stage
from jobs.policies.oom import Rung, next_rung

ASKED = Stage(first_example=0, batch_size=8, grad_accumulation_steps=2, grad_checkpoint=False, max_seq_length=2048)


def rung(stage: Stage, **changes: Any) -> Rung:
    """Ask for the next rung, with nothing known unless a test says it."""
    unknown: dict[str, Any] = {
        "first_example": 0,
        "may_repeat": True,
        "peak_bytes": None,
        "free_bytes": None,
        "allow_truncation": False,
    }
    return next_rung(stage, **(unknown | changes))


def climbed(stage: Stage, **changes: Any) -> list[Stage]:
    """Climb to the top."""
    stages = [stage]
    while (above := rung(stages[-1], **changes).stage) is not None:
        stages.append(above)
    return stages


def test_the_ladder_from_its_foot_to_its_top() -> None:
    stages = climbed(ASKED)
    assert [(stage.grad_checkpoint, stage.batch_size, stage.grad_accumulation_steps) for stage in stages] == [
        (False, 8, 2),
        (True, 8, 2),
        (True, 4, 4),
        (True, 2, 8),
        (True, 1, 16),
    ]
    assert {stage.max_seq_length for stage in stages} == {2048}
    assert stages[2].because == "out_of_memory: batch 8 -> 4, accumulation 2 -> 4; the effective batch stays 16"


@given(
    batch=st.integers(1, 512), accumulation=st.integers(1, 64), checkpoint=st.booleans(), start=st.integers(0, 10**6)
)
def test_whatever_the_batch_its_rows_and_its_updates_stay(
    batch: int, accumulation: int, checkpoint: bool, start: int
) -> None:
    asked = dataclasses.replace(
        ASKED, batch_size=batch, grad_accumulation_steps=accumulation, grad_checkpoint=checkpoint
    )
    stages = climbed(asked, first_example=start)
    for stage in stages[1:]:
        assert stage.batch_size * stage.grad_accumulation_steps == batch * accumulation
        assert batch % stage.batch_size == 0, "micro-batches cut an iteration evenly"
        assert stage.first_example == start
        assert (stage.salt, stage.learning_rate_factor, stage.segment) == (0, 1.0, None)
    assert stages[-1].batch_size == 1
    assert stages[-1].grad_checkpoint


@pytest.mark.parametrize(("batch", "sizes"), [(6, [3, 1]), (5, [1]), (12, [6, 3, 1]), (9, [3, 1]), (1, [])])
def test_a_batch_that_cannot_be_halved_is_cut_by_its_next_divisor(batch: int, sizes: list[int]) -> None:
    first = dataclasses.replace(ASKED, batch_size=batch, grad_checkpoint=True)
    assert [stage.batch_size for stage in climbed(first)[1:]] == sizes


def test_with_more_free_than_it_had_taken_it_is_tried_once_more_as_it_was() -> None:
    found = rung(ASKED, peak_bytes=4_000_000_000, free_bytes=4_000_000_001)
    assert (found.stage, found.again) == (ASKED, True)
    assert found.text == "once more as it was: 4.00 GB are free now, its peak was 4.00 GB"


@pytest.mark.parametrize(
    "known",
    [
        {"peak_bytes": 4_000_000_000, "free_bytes": 4_000_000_000},
        {"peak_bytes": 4_000_000_000, "free_bytes": 9_000_000_000, "may_repeat": False},
        {"peak_bytes": None, "free_bytes": 9_000_000_000},
        {"peak_bytes": 4_000_000_000, "free_bytes": None},
    ],
)
def test_without_reason_to_think_it_would_fit_now_it_is_not_repeated(known: dict[str, Any]) -> None:
    found = rung(ASKED, **known)
    assert not found.again
    assert found.stage is not None
    assert found.stage.grad_checkpoint


def test_cutting_rows_is_the_last_resort_and_only_where_it_is_allowed() -> None:
    top = climbed(ASKED)[-1]
    assert rung(top, lengths=(900, 500)).stage is None
    assert [stage.max_seq_length for stage in climbed(top, allow_truncation=True, lengths=(900, 500))] == [
        2048,
        900,
        500,
    ]
    assert "longer rows are cut" in rung(top, allow_truncation=True, lengths=(900, 500)).text


def test_rows_that_are_no_longer_than_that_cannot_be_cut_to_it() -> None:
    top = climbed(ASKED)[-1]
    assert climbed(top, allow_truncation=True, lengths=(4000, 2048)) == [top]
    assert climbed(top, allow_truncation=True, lengths=None) == [top]


def test_at_the_top_it_says_what_the_user_can_change() -> None:
    text = rung(climbed(ASKED)[-1]).text
    assert "max_seq_length (2048)" in text
    assert "allow_truncation" in text
    assert "\n" not in text
