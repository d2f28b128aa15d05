"""Which settings of several jobs differ, and what they are. Pure; light enough for `lq status`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
