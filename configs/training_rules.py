"""The arguments of MLX's optimizers and schedules, checked at submit instead of after the model is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from configs.errors import KeyPath, Problem, as_written
from configs.optimizers import OPTIMIZERS, SCHEDULES, STEPS
from configs.suggestions import Levels, unknown_key
from configs.yaml_text import Document
from jobs.model.spec import JobSpec
from jobs.model.text import listed

_REPORTERS = ("wandb", "swanlab")
_SPLITS = tuple(f"{name}_split" for name in ("train", "valid", "test"))
_FEATURES = tuple(f"{name}_feature" for name in ("prompt", "completion", "chat", "text"))
_HUB_KEYS = ("path", *_SPLITS, "config", *_FEATURES)
_KINDS = {
    "number": "a number",
    "flag": "true or false",
    "pair": "a list of two numbers",
    "count": "a whole number greater than 0",
}


def training_problems(document: Document, spec: JobSpec) -> list[Problem]:
    """Return the mistakes that the types cannot express."""
    rules = (_optimizer, _schedule, _reporters, _hub_data, _objective)
    return [problem for rule in rules for problem in rule(document, spec)]


def _objective(document: Document, spec: JobSpec) -> list[Problem]:
    """Refuse what does not fit a preference objective. A reference belongs to rows that are never cut shorter."""
    objective = spec.lq.objective
    if objective.keys and spec.lq.loss_weighting == "token":
        text = f"must be batch with lq.objective {objective.name}, whose loss is a mean over rows"
        return [document.problem(("lq", "loss_weighting"), text)]
    if not (objective.needs_reference and spec.lq.memory.allow_truncation):
        return []
    text = f"must be false with lq.objective {objective.name}; lower max_seq_length instead"
    return [document.problem(("lq", "memory", "allow_truncation"), text)]


def _unknown(document: Document, key_path: KeyPath, value: object, levels: Levels) -> Problem:
    text = unknown_key(key_path, value, top=document.value, levels=levels)
    return Problem(key_path=key_path, line=document.line(key_path), text=text)


def _optimizer(document: Document, spec: JobSpec) -> list[Problem]:
    top: KeyPath = ("optimizer_config",)
    known = OPTIMIZERS[spec.optimizer]
    levels = {"optimizer_config": tuple(OPTIMIZERS), f"optimizer_config.{spec.optimizer}": tuple(known)}
    problems = [_unknown(document, (*top, key), None, levels) for key in spec.optimizer_config if key not in OPTIMIZERS]
    arguments = spec.optimizer_config.get(spec.optimizer, {})
    for key, value in arguments.items():
        key_path = (*top, spec.optimizer, key)
        if key == "learning_rate":
            text = "unknown key 'learning_rate'; it belongs at the top of the file"
            problems.append(Problem(key_path=key_path, line=document.line(key_path), text=text))
        elif key not in known:
            problems.append(_unknown(document, key_path, value, levels))
        elif not _fits(value, known[key]):
            problems.append(document.problem(key_path, f"must be {_KINDS[known[key]]}, not {_shown(value)}"))
    return problems or _argument_values(document, spec, arguments)


def _argument_values(document: Document, spec: JobSpec, arguments: Mapping[str, Any]) -> list[Problem]:
    top: KeyPath = ("optimizer_config", spec.optimizer)
    if any(not 0 <= beta < 1 for beta in arguments.get("betas", ())):
        return [document.problem((*top, "betas"), "both must be of 0 or more and less than 1")]
    if spec.optimizer in ("adam", "adamw") and arguments.get("eps", 0) < 0:
        return [document.problem((*top, "eps"), "must be of 0 or more")]
    plain_momentum = arguments.get("momentum", 0) > 0 and arguments.get("dampening", 0) == 0
    if spec.optimizer == "sgd" and arguments.get("nesterov") and not plain_momentum:
        return [document.problem((*top, "nesterov"), "needs a momentum greater than 0 and no dampening")]
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
    return str(value) if isinstance(value, list) and len(value) < 4 else as_written(value)


def _schedule(document: Document, spec: JobSpec) -> list[Problem]:
    schedule = spec.lr_schedule
    if schedule is None:
        return []
    if schedule.name not in SCHEDULES:
        text = f"must be {listed(SCHEDULES, 'or')}, not {schedule.name!r}"
        return [document.problem(("lr_schedule", "name"), text)]
    names = SCHEDULES[schedule.name]
    key_path: KeyPath = ("lr_schedule", "arguments")
    required = sum(not name.startswith("[") for name in names)
    if not required <= len(schedule.arguments) <= len(names):
        text = f"{schedule.name} takes {', '.join(names)}, but the list has {len(schedule.arguments)} values"
        return [document.problem(key_path, text)]
    for name, value in zip(names, schedule.arguments, strict=False):
        if name in STEPS and value < 1:
            text = f"{name} of {schedule.name} must be 1 or more, not {value:g}"
            return [document.problem(key_path, text)]
    return []


def _reporters(document: Document, spec: JobSpec) -> list[Problem]:
    names = [name.strip().lower() for name in (spec.report_to or "").split(",") if name.strip()]
    if all(name in _REPORTERS for name in names):
        return []
    return [document.problem(("report_to",), f"must be wandb, swanlab or wandb,swanlab, not {spec.report_to!r}")]


def _hub_data(document: Document, spec: JobSpec) -> list[Problem]:
    problems = []
    for key_path, item in hub_entries(spec):
        if not isinstance(item.get("path"), str) or not item["path"]:
            problems.append(document.problem(key_path, "'path' is missing; write the name of the data set"))
        levels = {"hf_dataset": _HUB_KEYS}
        problems += [_unknown(document, (*key_path, key), None, levels) for key in item if key not in _HUB_KEYS]
    return problems


def hub_entries(spec: JobSpec) -> list[tuple[KeyPath, dict[str, Any]]]:
    """Return each data set of `hf_dataset` with its key path."""
    if isinstance(spec.hf_dataset, dict):
        return [(("hf_dataset",), spec.hf_dataset)]
    return [(("hf_dataset", index), item) for index, item in enumerate(spec.hf_dataset or ())]
