"""Which settings differ, between jobs and between the stages of a run plan. Light enough for `lq status`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobs.model.run_plan import Stage
from jobs.model.text import NONE

_NOT_COMPARED = {"lq.name", "lq.format", "lq.group", "adapter_path", "config"}
"""Keys of a job file that do not change the training."""

_OF_VALIDATION = (
    "model", "data", "hf_dataset", "val_batches", "max_seq_length", "mask_prompt",
    "prompt_feature", "completion_feature", "chat_feature", "text_feature",
)  # fmt: skip
"""Keys that decide which tokens of which rows a validation measures."""

_NOT_SHOWN = {"first_example", "because", "rollback", "first_flag", "first_update"}
"""Fields of a stage that `differences` leaves out."""

_STAGE_SETTINGS = {
    "batch_size": "batch",
    "grad_accumulation_steps": "accumulation",
    "grad_checkpoint": "gradient checkpointing",
    "max_seq_length": "max_seq_length",
    "learning_rate_factor": "learning rate x",
    "salt": "data order salt",
    "grad_clip": "gradient norm clipped to",
    "warmup_updates": "warm-up updates",
    "quarantined": "quarantined rows",
    "skipped": "skipped batches",
    "reset_moments": "optimizer state reset",
    "ends": "run ends here",
}


def differing(specs: Sequence[Mapping[str, Any]]) -> list[tuple[str, tuple[str, ...]]]:
    """Return each dotted key with different values, and the value in every job, in the order of the job files."""
    flat = [dict(_flat(spec)) for spec in specs]
    keys = dict.fromkeys(key for settings in flat for key in settings if key not in _NOT_COMPARED)
    rows = [(key, tuple(_value(settings.get(key)) for settings in flat)) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def validated_alike(specs: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether, by their job files, all validations measure the same tokens with the same objective."""
    rows = {tuple(str(spec.get(key)) for key in _OF_VALIDATION) for spec in specs}
    return len(rows) == 1 and have_one_objective(specs)


def have_one_objective(specs: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether all jobs minimize the same; losses of different objectives differ in meaning."""
    return len({json.dumps((spec.get("lq") or {}).get("objective"), sort_keys=True) for spec in specs}) == 1


def _flat(spec: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in spec.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differences(requested: Stage, stage: Stage) -> str:
    """Return the settings that a stage changes, as "requested -> run"."""
    changes = []
    for field in dataclasses.fields(Stage):
        before, after = getattr(requested, field.name), getattr(stage, field.name)
        if field.name not in _NOT_SHOWN and before != after:
            name = _STAGE_SETTINGS.get(field.name, field.name.replace("_", " "))
            if field.name == "skipped" and after:
                after = (f"{after[0] + 1} to {after[1]}",)
            changes.append(f"{name} {_stage_value(before)} -> {_stage_value(after)}")
    return ", ".join(changes) or "as requested"


def _stage_value(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None or value == () else _value(value)


def _value(value: object) -> str:
    if value is None or value in ([], ()):
        return NONE
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
