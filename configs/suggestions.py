"""Suggestions for unknown keys: the right key for a common mistake, otherwise the nearest key."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from configs.errors import KeyPath, as_written, dotted
from configs.yaml_text import quoted_key

Levels = Mapping[str, tuple[str, ...]]  # the valid keys of a file by the dotted key above them; the top is ""

MATRIX = "matrix"  # the key under `lq` that makes several jobs of one file (configs/matrix.py). No job has it

# key of another tool -> MLX-LM's key with the same value
_SAME_VALUE: Mapping[str, str] = {
    "lora_layers": "num_layers",
    "gradient_accumulation_steps": "grad_accumulation_steps",
    "gradient_accumulation": "grad_accumulation_steps",
    "gradient_checkpointing": "grad_checkpoint",
    "per_device_train_batch_size": "batch_size",
    "lr": "learning_rate",
    "max_length": "max_seq_length",
    "max_seq_len": "max_seq_length",
    "max_sequence_length": "max_seq_length",
    "steps_per_save": "save_every",
    "max_steps": "iters",
    "lora_rank": "lora_parameters.rank",
    "r": "lora_parameters.rank",
    "lora_dropout": "lora_parameters.dropout",
    "warmup_steps": "lr_schedule.warmup",
}
_EPOCHS = ("epochs", "num_epochs", "num_train_epochs")
_ALPHA = ("alpha", "lora_alpha")


def unknown_key(key_path: KeyPath, value: object, *, top: Mapping[str, Any], levels: Levels) -> str:
    """Return what is wrong with a key of the file `top`, and what to write; secrets are not quoted."""
    under, key = dotted(_without_positions(key_path[:-1])), str(key_path[-1])
    named = quoted_key(key if not under or ":/" in key else f"{under}.{key}")
    word = key.lower().replace("-", "_")
    if word == MATRIX and "lora_parameters" in levels:
        return f"unknown key {named}; it belongs under 'lq'"
    hint = _common_mistake(word, value, top) if "lora_parameters" in levels else None
    return f"unknown key {named}; {hint or _misplaced(word, under, levels) or _nearest(word, under, levels)}"


def _without_positions(key_path: KeyPath) -> KeyPath:
    return tuple(part for part in key_path if isinstance(part, str))


def _common_mistake(word: str, value: object, top: Mapping[str, Any]) -> str | None:
    answers: dict[str, Callable[[], str | None]] = {
        **dict.fromkeys(_ALPHA, lambda: _scale(value, top)),
        **dict.fromkeys(_EPOCHS, lambda: _epochs(value)),
        "target_modules": lambda: (
            "write 'lora_parameters.keys' with the module names of MLX-LM, such as self_attn.q_proj"
        ),
        "use_dora": lambda: "write 'fine_tune_type: dora'",
        "wandb": lambda: "write 'report_to: wandb', and 'project_name' for the project",
    }
    if word in answers:
        return answers[word]()
    return _renamed(_SAME_VALUE[word], value, top) if word in _SAME_VALUE else None


def _renamed(right: str, value: object, top: Mapping[str, Any]) -> str:
    if right == "num_layers" and isinstance(value, list):  # `lora_layers: [q_proj]` means the modules
        right = "lora_parameters.keys"
    if _given(right, top):
        return f"remove it, '{right}' is given"
    written = value if isinstance(value, str) else as_written(value)
    return f"write '{right}'" if isinstance(value, dict | list) else f"write '{right}: {written}'"


def _given(right: str, top: Mapping[str, Any]) -> bool:
    inside: Any = top
    for key in right.split("."):
        if not isinstance(inside, dict) or inside.get(key) is None:
            return False
        inside = inside[key]
    return True


def _scale(alpha: object, top: Mapping[str, Any]) -> str:
    """Suggest a scale. MLX-LM multiplies by it; PEFT multiplies by alpha / rank (docs/explanation/dependencies.md)."""
    if _given("lora_parameters.scale", top):
        return "remove it, 'lora_parameters.scale' is given"
    rank = _rank(top)
    if not _is_number(alpha) or not _is_number(rank) or rank <= 0:
        return "write 'lora_parameters.scale', which is alpha / rank"
    return f"write 'lora_parameters.scale: {alpha / rank:g}', which is alpha / rank = {alpha:g} / {rank:g}"


def _rank(top: Mapping[str, Any]) -> Any:
    inner = top.get("lora_parameters")
    inner = inner if isinstance(inner, dict) else {}
    given = [level[key] for level in (inner, top) for key in ("rank", "r", "lora_rank") if level.get(key) is not None]
    return given[0] if given else 8


def _is_number(value: object) -> TypeGuard[float]:
    """Return whether the value is a number small enough for the calculation."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def _epochs(epochs: object) -> str:
    return f"write 'lq.epochs: {epochs:g}' instead of iters" if _is_number(epochs) else "write 'lq.epochs'"


def _misplaced(word: str, under: str, levels: Levels) -> str | None:
    """Suggest the right place for a key that exists elsewhere in the file."""
    if word in levels.get(under, ()):
        return f"did you mean '{word}'?"
    places = [level for level, keys in levels.items() if word in keys and level != under]
    if not places:
        return None
    place = "lq" if "lq" in places else places[0]
    return f"it belongs under '{place}'" if place else "it belongs at the top of the file"


def _nearest(word: str, under: str, levels: Levels) -> str:
    keys = levels.get(under, ())
    if under == "lq":
        keys = (*keys, MATRIX)
    near = difflib.get_close_matches(word, keys, n=1)
    if near:
        return f"did you mean '{near[0]}'?"
    if len(keys) > 12:
        return "lq config schema prints every key"
    return f"the keys here are {', '.join(keys)}"
