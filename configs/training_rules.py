"""What MLX's optimizers and schedules accept, so that a slip is found at submit and not after the model is loaded.

The tables are copied from mlx/optimizers/optimizers.py and schedulers.py; tests/unit/configs compares them with the
sources. No mlx in here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from configs.errors import Fault, Where, dotted, show
from configs.suggestions import unknown_key
from configs.yaml_text import Document
from jobs.model.spec import JobSpec
from jobs.model.text import listed

_ADAM = {"betas": "pair", "eps": "number", "bias_correction": "flag"}

OPTIMIZERS: Mapping[str, Mapping[str, str]] = {
    "adam": _ADAM,
    "adamw": _ADAM | {"weight_decay": "number"},
    "muon": {"momentum": "number", "weight_decay": "number", "nesterov": "flag", "ns_steps": "count"},
    "sgd": {"momentum": "number", "weight_decay": "number", "dampening": "number", "nesterov": "flag"},
    "adafactor": {
        "eps": "pair",
        "clip_threshold": "number",
        "decay_rate": "number",
        "beta_1": "number",
        "weight_decay": "number",
        "scale_parameter": "flag",
        "relative_step": "flag",
        "warmup_init": "flag",
    },
}
"""The arguments of each optimizer, without the learning rate, and what each must be."""

SCHEDULES: Mapping[str, tuple[str, ...]] = {
    "exponential_decay": ("init", "decay_rate"),
    "step_decay": ("init", "decay_rate", "step_size"),
    "cosine_decay": ("init", "decay_steps", "[end]"),
    "linear_schedule": ("init", "end", "steps"),
}
"""The schedules a file can name and their arguments in order, those in brackets optional. `join_schedules` takes
functions, which no file can name."""

_STEPS = ("step_size", "decay_steps", "steps")
_REPORTERS = ("wandb", "swanlab")
_HUB_KEYS = (
    "path",
    "train_split",
    "valid_split",
    "test_split",
    "config",
    "prompt_feature",
    "completion_feature",
    "chat_feature",
    "text_feature",
)
_KINDS = {
    "number": "a number",
    "flag": "true or false",
    "pair": "a list of two numbers",
    "count": "a whole number greater than 0",
}


def training_faults(document: Document, spec: JobSpec) -> list[Fault]:
    """Find what the types cannot say.

    Args:
        document: the job file, for the lines.
        spec: what was read from it.
    """
    found = [*_optimizer(document, spec), *_schedule(spec), *_reporters(spec), *_hub_data(document, spec)]
    return [Fault(where=where, line=document.line(where), text=text) for where, text in found]


def _optimizer(document: Document, spec: JobSpec) -> list[tuple[Where, str]]:
    top: Where = ("optimizer_config",)
    known = OPTIMIZERS[spec.optimizer]
    levels = {"optimizer_config": tuple(OPTIMIZERS), f"optimizer_config.{spec.optimizer}": tuple(known)}
    names = [(*top, name) for name in spec.optimizer_config if name not in OPTIMIZERS]
    found = [(where, unknown_key(where, None, top=document.value, levels=levels)) for where in names]
    arguments = spec.optimizer_config.get(spec.optimizer, {})
    for key, value in arguments.items():
        where = (*top, spec.optimizer, key)
        if key == "learning_rate":
            found.append((where, "unknown key 'learning_rate'; it belongs at the top of the file"))
        elif key not in known:
            found.append((where, unknown_key(where, value, top=document.value, levels=levels)))
        elif not _fits(value, known[key]):
            found.append((where, f"{dotted(where)}: must be {_KINDS[known[key]]}, not {_shown(value)}"))
    return found or _combinations(spec, arguments)


def _combinations(spec: JobSpec, arguments: Mapping[str, Any]) -> list[tuple[Where, str]]:
    top: Where = ("optimizer_config", spec.optimizer)
    betas = arguments.get("betas", ())
    if any(not 0 <= beta < 1 for beta in betas):
        return [((*top, "betas"), f"{dotted((*top, 'betas'))}: both must be of 0 or more and less than 1")]
    if spec.optimizer in ("adam", "adamw") and arguments.get("eps", 0) < 0:
        return [((*top, "eps"), f"{dotted((*top, 'eps'))}: must be of 0 or more")]
    plain_momentum = arguments.get("momentum", 0) > 0 and arguments.get("dampening", 0) == 0
    if spec.optimizer == "sgd" and arguments.get("nesterov") and not plain_momentum:
        where = (*top, "nesterov")
        return [(where, f"{dotted(where)}: needs a momentum greater than 0 and no dampening")]
    return []


def _fits(value: object, kind: str) -> bool:
    if kind == "flag":
        return isinstance(value, bool)
    if kind == "pair":
        return isinstance(value, list) and len(value) == 2 and all(_fits(item, "number") for item in value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return kind == "number" or (isinstance(value, int) and value > 0)


def _shown(value: object) -> str:
    return str(value) if isinstance(value, list) and len(value) < 4 else show(value)


def _schedule(spec: JobSpec) -> list[tuple[Where, str]]:
    schedule = spec.lr_schedule
    if schedule is None:
        return []
    if schedule.name not in SCHEDULES:
        name: Where = ("lr_schedule", "name")
        return [(name, f"{dotted(name)}: must be {listed(SCHEDULES, 'or')}, not {schedule.name!r}")]
    named = SCHEDULES[schedule.name]
    where: Where = ("lr_schedule", "arguments")
    required = sum(not argument.startswith("[") for argument in named)
    if not required <= len(schedule.arguments) <= len(named):
        text = f"{dotted(where)}: {schedule.name} takes {', '.join(named)}; {len(schedule.arguments)} given"
        return [(where, text)]
    for argument, value in zip(named, schedule.arguments, strict=False):
        if argument in _STEPS and value < 1:
            return [(where, f"{dotted(where)}: {argument} of {schedule.name} must be 1 or more, not {value:g}")]
    return []


def _reporters(spec: JobSpec) -> list[tuple[Where, str]]:
    names = [name.strip().lower() for name in (spec.report_to or "").split(",") if name.strip()]
    if all(name in _REPORTERS for name in names):
        return []
    return [(("report_to",), f"report_to: must be wandb, swanlab or wandb,swanlab, not {spec.report_to!r}")]


def _hub_data(document: Document, spec: JobSpec) -> list[tuple[Where, str]]:
    levels = {"hf_dataset": _HUB_KEYS}
    found = []
    for where, item in hub_entries(spec):
        if not isinstance(item.get("path"), str) or not item["path"]:
            found.append((where, f"{dotted(where)}: 'path' is missing, the name of the data set"))
        names: list[Where] = [(*where, key) for key in item if key not in _HUB_KEYS]
        found += [(name, unknown_key(name, None, top=document.value, levels=levels)) for name in names]
    return found


def hub_entries(spec: JobSpec) -> list[tuple[Where, dict[str, Any]]]:
    """Return each data set of `hf_dataset` with its place in the file."""
    if isinstance(spec.hf_dataset, dict):
        return [(("hf_dataset",), spec.hf_dataset)]
    return [(("hf_dataset", place), item) for place, item in enumerate(spec.hf_dataset or ())]
