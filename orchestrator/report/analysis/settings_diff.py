"""Which settings differ, between jobs and between the stages of a run plan. Light enough for `lq status`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.model.run_plan import Stage

_NO_SETTING = {"lq.name", "lq.format", "lq.group", "adapter_path", "config"}
"""Keys of a job file that say nothing of how it trains."""

_OF_VALIDATION = (
    "model",
    "data",
    "hf_dataset",
    "val_batches",
    "max_seq_length",
    "mask_prompt",
    "prompt_feature",
    "completion_feature",
    "chat_feature",
    "text_feature",
)
"""Keys that settle which tokens of which rows a validation loss is of."""


def differing(specs: Sequence[Mapping[str, Any]]) -> list[tuple[str, tuple[str, ...]]]:
    """Return of each dotted key that differs its value in every job, in the order of the file.

    Args:
        specs: job files, as frozen at submit.
    """
    flat = [_flat(spec) for spec in specs]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = [(key, tuple(_word(one.get(key)) for one in flat)) for key in keys if key not in _NO_SETTING]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def validated_alike(specs: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether the validation losses of all jobs are, by their files, of the same tokens."""
    return all(
        [spec.get(key) for key in _OF_VALIDATION] == [specs[0].get(key) for key in _OF_VALIDATION] for spec in specs
    )


def _flat(spec: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the settings by dotted key."""
    found: dict[str, Any] = {}
    for key, value in spec.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _word(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "–"
    return "–" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def differences(requested: Stage, stage: Stage) -> str:
    """Return what a stage changes of what was asked for, as "requested -> run"."""
    said = []
    for field in dataclasses.fields(Stage):
        asked, run = getattr(requested, field.name), getattr(stage, field.name)
        if field.name not in _STAGE_POSITION and asked != run:
            name = _SETTINGS.get(field.name, field.name.replace("_", " "))
            shown = (f"{run[0] + 1} to {run[1]}",) if field.name == "skipped" and run else run
            said.append(f"{name} {_setting(asked)} -> {_setting(shown)}")
    return ", ".join(said) or "as requested"


_STAGE_POSITION = {"first_example", "because", "rollback", "first_flag", "first_update"}
"""Fields of a stage that say where and why it begins."""

_SETTINGS = {
    "batch_size": "batch",
    "grad_accumulation_steps": "accumulation",
    "grad_checkpoint": "gradient checkpointing",
    "max_seq_length": "max_seq_length",
    "learning_rate_factor": "learning rate x",
    "salt": "salt of the data order",
    "grad_clip": "gradient norm clipped to",
    "warmup_updates": "warm-up updates",
    "quarantined": "rows left out for good",
    "skipped": "batches left out for an epoch",
    "reset_moments": "moments forgotten",
    "ends": "ends here",
}


def _setting(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
