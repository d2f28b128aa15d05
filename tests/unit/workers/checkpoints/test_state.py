"""state.json: it comes back as it was written, and other versions are refused."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.model.errors import CheckpointInvalid, CheckpointOfAnotherVersion
from tests.unit.workers.tensor_files import state_at
from workers.checkpoints.state import VERSION, CheckpointState, SavedValidation, SelfTestRecord
from workers.events.reporter import PendingReport

COUNT, LOSS = st.integers(0, 10**12), st.floats(allow_nan=False)
STATES = st.builds(
    CheckpointState,
    iteration=COUNT,
    examples_seen=COUNT,
    stage=COUNT,
    updates=COUNT,
    finite=st.booleans(),
    random_key=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    progress=st.builds(
        PendingReport,
        tokens=COUNT,
        losses=st.lists(LOSS).map(tuple),
        skipped=st.lists(COUNT).map(tuple),
    ),
    validation=st.none()
    | st.builds(SavedValidation, loss=LOSS, standard_error=st.none() | LOSS, examples=COUNT, iteration=COUNT),
    self_test=st.none() | st.builds(SelfTestRecord, loss=LOSS, examples=COUNT, batch_size=COUNT),
    versions=st.dictionaries(st.text(), st.text()),
    machine=st.text(),
    data=st.dictionaries(st.text(), st.text()),
)


@given(state=STATES)
def test_state_survives_json(state: CheckpointState) -> None:
    assert CheckpointState.from_json(json.loads(json.dumps(state.to_json(), allow_nan=False))) == state


@pytest.mark.parametrize("version", [1, VERSION + 1, "2"])
def test_other_versions_are_refused(version: object) -> None:
    with pytest.raises(CheckpointOfAnotherVersion, match=f"reads version {VERSION}"):
        CheckpointState.from_json(state_at(3).to_json() | {"version": version})


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(CheckpointState)])
def test_missing_fields_are_refused(name: str) -> None:
    content = state_at(3).to_json()
    del content[name]
    with pytest.raises(CheckpointInvalid, match=name):
        CheckpointState.from_json(content)


@pytest.mark.parametrize("content", [None, [], 7, "state", {}, {"version": VERSION, "leg": 0}])
def test_what_is_no_state_is_refused(content: Any) -> None:
    with pytest.raises(CheckpointInvalid):
        CheckpointState.from_json(content)


def test_requested_validation_is_no_best() -> None:
    validation = SavedValidation(loss=1.5, standard_error=None, examples=4, iteration=3)
    assert dataclasses.replace(state_at(3), validation=validation).validation_loss == 1.5
    requested = dataclasses.replace(validation, asked=True)
    assert dataclasses.replace(state_at(3), validation=requested).validation_loss is None
