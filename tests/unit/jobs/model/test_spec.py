"""JobSpec: its defaults, compared with the source of MLX-LM, and its checks."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from jobs.model.spec import JobSpec, parse_duration, parse_size

OURS = {
    "val_batches": -1,  # the whole set, so that checkpoints are comparable; MLX-LM draws 25 batches
    "test_batches": -1,
    "train": True,  # lq only queues training
    "adapter_path": None,  # every job has its own folder; MLX-LM overwrites ./adapters
}
"""Defaults that differ from those of MLX-LM."""

DATA_KEYS = {"hf_dataset", "prompt_feature", "completion_feature", "chat_feature", "text_feature", "lq"}
"""Keys without a default in the table of MLX-LM, and `lq`."""


def mlx_lm_defaults() -> dict[str, Any]:
    """Return CONFIG_DEFAULTS of mlx_lm/lora.py without importing it."""
    spec = importlib.util.find_spec("mlx_lm")
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse((Path(spec.origin).parent / "lora.py").read_text())
    [value] = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CONFIG_DEFAULTS"
    ]
    defaults = ast.literal_eval(value)
    assert isinstance(defaults, dict)
    return defaults


def ours(key: str) -> Any:
    """Return the default of a key as plain data, without the empty keys that lq adds in a mapping."""
    value = JobSpec().model_dump(mode="json")[key]
    if key == "lora_parameters":
        return {name: item for name, item in value.items() if item is not None}
    return value


@pytest.mark.parametrize("key", sorted(mlx_lm_defaults()))
def test_default_is_that_of_mlx_lm(key: str) -> None:
    expected = mlx_lm_defaults()[key]
    if key == "optimizer_config":  # no arguments for any optimizer
        assert not any(expected.values())
        expected = {}
    assert ours(key) == OURS.get(key, expected)


def test_exceptions_still_differ() -> None:
    theirs = mlx_lm_defaults()
    assert {key for key in theirs if key in OURS and theirs[key] != OURS[key]} == set(OURS)


def test_keys_are_those_of_mlx_lm_and_lq() -> None:
    assert set(JobSpec.model_fields) == set(mlx_lm_defaults()) | DATA_KEYS


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90.0), ("10min", 600.0), ("10 m", 600.0), ("1.5h", 5400.0), ("45", 45.0), ("2 SEC", 2.0)],
)
def test_durations_become_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("512MB", 512 << 20), ("2G", 2 << 30), ("1.5kib", 1536), ("1 TB", 1 << 40), ("7b", 7)],
)
def test_size_text_becomes_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["soon", "", "-5s", "1 fortnight", "1e3s"])
def test_invalid_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["big", "", "-1", "1 EB", "2 GBs"])
def test_invalid_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a size"):
        parse_size(text)


def test_parsers_leave_other_types() -> None:
    assert parse_duration(5) == 5
    assert parse_size(None) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"iters": 0},
        {"max_seq_length": 1},
        {"grad_accumulation_steps": 0},
        {"learning_rate": float("nan")},
        {"learning_rate": 0},
        {"seed": -1},
        {"train": False},
        {"optimizer": "lion"},
        {"lq": {"name": " "}},
        {"lq": {"name": "x" * 81}},
        {"lq": {"batching": "sorted"}},
        {"lora_parameters": {"dropout": 1.0}},
        {"unknown": 1},
    ],
)
def test_unusable_values_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        JobSpec.model_validate(wrong)


def test_spec_values_are_frozen() -> None:
    spec = JobSpec()
    with pytest.raises(ValidationError):
        spec.iters = 5  # type: ignore[misc]


def test_optimizer_and_kind_ignore_case() -> None:
    spec = JobSpec.model_validate({"optimizer": "AdamW", "fine_tune_type": "DoRA"})
    assert (spec.optimizer, spec.fine_tune_type) == ("adamw", "dora")


def test_prompts_are_few_nonempty_texts() -> None:
    assert JobSpec(lq={"prompts": ["What is LoRA?"]}).lq.prompts == ("What is LoRA?",)
    for wrong in ("What is LoRA?", [""], [1], ["x"] * 21):
        with pytest.raises(ValidationError):
            JobSpec(lq={"prompts": wrong})
