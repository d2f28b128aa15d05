"""The frozen configuration of a job: round trip and checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.load import dump_job, load_frozen
from jobs.model.errors import ConfigInvalid
from jobs.model.spec import JobSpec

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12) | st.sampled_from(
    ["1e-5", "on", "null", "~", "=", "<<", "2026-01-31", "1:30", "0o7", "", " ", "a: b", "- a", "\ufeff", "\x85", "'"]
).filter(bool)
_NUMBER = st.floats(allow_nan=False, allow_infinity=False)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | _NUMBER | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=5,
)
_FREE = st.dictionaries(_TEXT, _JSON, max_size=3)
_NAME = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=80)


def _some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


_LQ = _some(
    name=_NAME,
    priority=st.integers(),
    batching=st.sampled_from(["bucketed", "shuffled"]),
    retry=_some(max_restarts=st.integers(0, 99)),
    checkpoint=_some(every=st.floats(1e-3, 1e9)),
    notify=_some(on=st.none() | st.just(("failed", "finished")), tags=st.none() | st.tuples(_TEXT)),
)
_SPECS = _some(
    model=_TEXT,
    data=_TEXT,
    project_name=st.none() | _TEXT,
    adapter_path=st.none() | _TEXT,
    optimizer=st.sampled_from(["adam", "sgd"]),
    optimizer_config=st.dictionaries(_TEXT, _FREE, max_size=2),
    hf_dataset=st.none() | _FREE | st.lists(_FREE, max_size=2).map(tuple),
    seed=st.integers(0, 2**63 - 1),
    learning_rate=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    clear_cache_threshold=st.integers(0, 2**50),
    lr_schedule=st.none()
    | st.fixed_dictionaries({"name": _TEXT, "arguments": st.lists(_NUMBER, min_size=1, max_size=3).map(tuple)}),
    lora_parameters=_some(scale=_NUMBER, keys=st.none() | st.tuples(_TEXT, _TEXT)),
    lq=_LQ,
).map(JobSpec.model_validate)


@given(spec=_SPECS)
@settings(max_examples=150, deadline=None, database=None)
def test_frozen_job_survives_round_trip(spec: JobSpec, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "config.yaml"
    path.write_text(dump_job(spec), encoding="utf-8", newline="")
    assert load_frozen(path) == spec


def test_frozen_job_has_every_default() -> None:
    written = yaml.safe_load(dump_job(JobSpec()))
    assert list(written) == list(JobSpec.model_fields)
    assert list(written)[-1] == "lq"
    assert written["lq"]["retry"] == {"max_restarts": 5, "crash_loop": 3}


def test_newer_frozen_job_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(dump_job(JobSpec()).replace("format: 1", "format: 2") + "  later: 1\n")
    with pytest.raises(ConfigInvalid, match=r"config\.yaml: has format 2"):
        load_frozen(path)


def test_edited_frozen_job_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(dump_job(JobSpec()).replace("batch_size: 4", "batch_size: 0"))
    with pytest.raises(ConfigInvalid, match="batch_size: must be"):
        load_frozen(path)
