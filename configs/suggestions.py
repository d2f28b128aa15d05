"""What to say about a key that lq does not know: the right key where the slip is a common one, else the nearest.

Only words come out of here; whether a key is known is configs/validation.py's to say.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from configs.errors import Where, dotted, show
from configs.yaml_text import quoted_key

Levels = Mapping[str, tuple[str, ...]]
"""The valid keys of a file by the dotted key they stand under; the top is ""."""

NOT_BUILT: Mapping[str, str] = {
    "": "database",
}
"""Keys that the design names and this version does not follow yet, by what they stand under."""

MATRIX = "matrix"
"""The key under `lq` that makes several jobs of one file (configs/matrix.py); no job has it."""

# what the neighbours call it -> what MLX-LM calls it; the value stays the same
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


def is_not_built(where: Where) -> bool:
    """Say whether the design knows this key and this version does not."""
    return str(where[-1]) in NOT_BUILT.get(dotted(where[:-1]), "").split()


def unknown_key(where: Where, value: object, *, top: Mapping[str, Any], levels: Levels) -> str:
    """Say what is wrong with a key and what to write.

    Args:
        where: the key that is not known.
        value: what stands there; shown only for keys of training, which hold no secrets.
        top: the whole file, to look up what else is given.
        levels: the valid keys.
    """
    under, key = dotted(_without_positions(where[:-1])), str(where[-1])
    named = quoted_key(key if not under or ":/" in key else f"{under}.{key}")
    if is_not_built(where):
        return f"{named} is not built yet in this version; remove it"
    word = key.lower().replace("-", "_")
    if word == MATRIX and "lora_parameters" in levels:
        return f"unknown key {named}; it belongs under 'lq'"
    slip = _slip(word, value, top) if "lora_parameters" in levels else None
    return f"unknown key {named}; {slip or _placed(word, under, levels) or _nearest(word, under, levels)}"


def _without_positions(where: Where) -> Where:
    return tuple(part for part in where if isinstance(part, str))


def _slip(word: str, value: object, top: Mapping[str, Any]) -> str | None:
    answers: dict[str, Callable[[], str | None]] = {
        **dict.fromkeys(_ALPHA, lambda: _scale(value, top)),
        **dict.fromkeys(_EPOCHS, lambda: _iters(value, top)),
        "target_modules": lambda: (
            "write 'lora_parameters.keys' with MLX-LM's names of the modules, such as self_attn.q_proj"
        ),
        "use_dora": lambda: "write 'fine_tune_type: dora'",
        "wandb": lambda: "write 'report_to: wandb', and 'project_name' for the project",
    }
    if word in answers:
        return answers[word]()
    return _renamed(_SAME_VALUE[word], value, top) if word in _SAME_VALUE else None


def _renamed(right: str, value: object, top: Mapping[str, Any]) -> str:
    if right == "num_layers" and isinstance(value, list):  # the modules, under what was the number of layers once
        right = "lora_parameters.keys"
    if _given(right, top):
        return f"remove it, '{right}' is given"
    written = value if isinstance(value, str) else show(value)
    return f"write '{right}'" if isinstance(value, dict | list) else f"write '{right}: {written}'"


def _given(right: str, top: Mapping[str, Any]) -> bool:
    inside: Any = top
    for key in right.split("."):
        if not isinstance(inside, dict) or inside.get(key) is None:
            return False
        inside = inside[key]
    return True


def _scale(alpha: object, top: Mapping[str, Any]) -> str:
    """MLX-LM's scale multiplies directly; PEFT divides alpha by the rank first (field-notes.md, "MLX-LM")."""
    if _given("lora_parameters.scale", top):
        return "remove it, 'lora_parameters.scale' is given"
    rank = _rank(top)
    if not _is_number(alpha) or not _is_number(rank) or rank <= 0:
        return "write 'lora_parameters.scale', which is alpha / rank"
    return f"write 'lora_parameters.scale: {alpha / rank:g}', which is alpha / rank = {alpha:g} / {rank:g}"


def _rank(top: Mapping[str, Any]) -> Any:
    inner = top.get("lora_parameters")
    inner = inner if isinstance(inner, dict) else {}
    named = [level[key] for level in (inner, top) for key in ("rank", "r", "lora_rank") if level.get(key) is not None]
    return named[0] if named else 8


def _is_number(value: object) -> TypeGuard[float]:
    """A number small enough to calculate with."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def _iters(epochs: object, top: Mapping[str, Any]) -> str:
    how = "write 'iters', which counts batches: epochs * rows / batch_size"
    batch_size = top.get("batch_size", 4)
    if not _is_number(epochs) or not _is_number(batch_size):
        return how
    return f"{how}, here {epochs:g} * rows / {batch_size:g}"


def _placed(word: str, under: str, levels: Levels) -> str | None:
    """The key is right and stands in the wrong place."""
    if word in levels.get(under, ()):
        return f"did you mean '{word}'?"
    homes = [level for level, keys in levels.items() if word in keys and level != under]
    if not homes:
        return None
    home = "lq" if "lq" in homes else homes[0]
    return f"it belongs under '{home}'" if home else "it belongs at the top of the file"


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
