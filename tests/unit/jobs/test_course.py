"""course.json: what a run is trained under."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.course import Course, Leg, from_json, to_json
from jobs.errors import ConfigInvalid
from jobs.spec import JobSpec

LEGS = st.builds(
    Leg,
    first_example=st.integers(0, 10**9),
    batch_size=st.integers(1, 512),
    grad_accumulation_steps=st.integers(1, 64),
    grad_checkpoint=st.booleans(),
    max_seq_length=st.integers(2, 1 << 20),
    learning_rate_factor=st.floats(0.001, 1.0),
    salt=st.integers(0, 2**31),
    because=st.text(),
)


@given(legs=st.lists(LEGS, min_size=1, max_size=4))
def test_a_course_comes_back_as_it_was_written(legs: list[Leg]) -> None:
    course = Course(legs=tuple(legs))
    assert from_json(json.dumps(to_json(course))) == course


def test_the_first_leg_is_what_the_user_asked_for() -> None:
    spec = JobSpec(batch_size=3, grad_accumulation_steps=5, grad_checkpoint=True, max_seq_length=99)
    [leg] = Course.requested(spec).legs
    assert (leg.first_example, leg.salt, leg.learning_rate_factor, leg.because) == (0, 0, 1.0, "requested")
    assert (leg.batch_size, leg.grad_accumulation_steps) == (3, 5)
    assert (leg.grad_checkpoint, leg.max_seq_length) == (True, 99)


def test_a_course_of_a_newer_lq_is_refused_with_both_versions() -> None:
    with pytest.raises(ConfigInvalid, match=r"course\.json has version 2; this lq reads version 1"):
        from_json('{"version": 2, "legs": [], "new": 1}')


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        "7",
        '"course"',
        "{}",
        '{"version": 1}',
        '{"version": 1, "legs": 5}',
        '{"version": 1, "legs": [5]}',
        '{"version": 1, "legs": [{}]}',
        '{"version": 1, "legs": [{"batch_size": 4, "gear": 2}]}',
        '{"version": 1, "legs": []}',
    ],
)
def test_what_is_no_course_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigInvalid) as caught:
        from_json(text)
    assert str(caught.value).startswith("course.json ")
    assert "\n" not in str(caught.value)
