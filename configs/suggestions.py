"""Suggestions for unknown keys: by meaning (synonyms.yaml), by place, and by letters if those are really near."""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeGuard, get_args, get_origin

from pydantic import ValidationError

from configs import yaml_text
from configs.errors import KeyPath, as_written, dotted
from configs.optimizers import OPTIMIZERS
from configs.yaml_text import quoted_key
from jobs.model.spec import JobSpec

MATRIX = "matrix"  # the key under `lq` that makes several jobs of one file (configs/matrix.py). No job has it
Levels = Mapping[str, tuple[str, ...]]  # the valid keys of a file by the dotted key above them; the top is ""

_NEAR = 0.75  # of the letters
_WEAK = {"each", "every", "last", "best", "least", "most", "load", "save", "limit", "enabled", "on", "probe"}
"""Keys inside the sections of `lq` that mean something else elsewhere."""

_ARGUMENTS = {
    **{word: word for word in ("weight_decay", "betas", "eps", "momentum", "nesterov", "dampening")},
    **dict.fromkeys(("adam_beta1", "adam_beta2", "beta1", "beta2", "adam_betas"), "betas"),
    **dict.fromkeys(("adam_epsilon", "adam_eps", "epsilon"), "eps"),
    "wd": "weight_decay",
}
"""Arguments of optimizers, also by the names of other trainers."""

_COMPUTED = {
    **dict.fromkeys(("alpha", "lora_alpha"), "lora_parameters.scale"),
    **dict.fromkeys(("warmup_ratio", "warmup_proportion", "warmup_fraction"), "lr_schedule.warmup"),
}
"""Keys of other trainers from whose value that of the key here is computed."""


def unknown_key(key_path: KeyPath, value: object, *, top: Mapping[str, Any], levels: Levels) -> str:
    """Return what is wrong with a key of the file `top`, and what to write; secrets are not quoted."""
    under, key = dotted(tuple(part for part in key_path[:-1] if isinstance(part, str))), str(key_path[-1])
    named = quoted_key(key if not under or ":/" in key else f"{under}.{key}")
    word = _word(key)
    of_job = "lora_parameters" in levels
    if word == MATRIX and of_job:
        return f"unknown key {named}; it belongs under 'lq'"
    section, _, inner = word.rpartition(".")
    if section and not under and inner in levels.get(section, ()):  # as --set takes it
        return f"unknown key {named}; in a file, write '{inner}' inside '{section}'"
    same = f"did you mean '{word}'?" if word in levels.get(under, ()) else None
    meaning = _meaning(word, value, under, top, levels) if of_job and "lq." not in under and same is None else None
    return f"unknown key {named}; {same or meaning or _misplaced(word, under, levels) or _nearest(word, under, levels)}"


def _word(key: str) -> str:
    """Return `learning_rate` for `learning-rate`, `learningRate` and `Learning_Rate`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower().replace("-", "_").replace(" ", "_")


@functools.cache
def _synonyms() -> tuple[dict[str, str], dict[str, tuple[str, str]], dict[str, frozenset[str]]]:
    """Return the keys here with the same value, keys that come near and advice, and the keys of other trainers."""
    content = files("configs").joinpath("synonyms.yaml").read_bytes()
    table = yaml_text.require_document(Path("synonyms.yaml"), content).value
    same = {key: target for target, keys in table["same_value"].items() for key in keys}
    advice = {key: (item.get("here", ""), item["text"]) for item in table["advice"] for key in item["keys"]}
    return same, advice, {tool: frozenset(keys) for tool, keys in table["tools"].items()}


def _meaning(word: str, value: object, under: str, top: Mapping[str, Any], levels: Levels) -> str | None:
    computed = {"lora_parameters.scale": _scale, "lr_schedule.warmup": _warmup}
    same, advice, _ = _synonyms()
    is_section = not under and isinstance(value, dict) and (word == "lora" or word not in advice)
    if is_section and isinstance(value, dict) and (section := _section(value, levels)):
        return section
    if word in _COMPUTED:
        return computed[_COMPUTED[word]](value, top)
    if word in same:
        return _renamed(same[word], value, top)
    if word in advice:
        here, text = advice[word]
        return f"remove it, '{here}' is given" if here and _given(here, top) else text
    return optimizer_argument(word, value, top)


def _section(section: Mapping[str, Any], levels: Levels) -> str | None:
    """Return where the keys of a section belong that the files of MLX-LM do not have."""
    pairs = list(_counterparts(section, levels))
    shown = ", ".join(key if key == here else f"{key} as {here}" for key, here in pairs)
    return f"there is no such section; write its keys at the top of the file: {shown}" if pairs else None


def _counterparts(section: Mapping[str, Any], levels: Levels) -> Iterator[tuple[str, str]]:
    """Yield the keys that have a counterpart in a job file, with it."""
    same, advice, _ = _synonyms()
    for key in section:
        word = _word(key)
        places = [level for level in ("", "lora_parameters") if word in levels[level]]
        named = same.get(word) or _COMPUTED.get(word) or advice.get(word, ("",))[0]
        here = f"{places[0]}.{word}".removeprefix(".") if places else named
        if here or word in _ARGUMENTS:
            yield key, here or "optimizer_config"


def other_trainer(top: Mapping[str, Any], levels: Levels) -> str | None:
    """Return of which other trainer a file is, and what corresponds to its keys; None if it is of none."""
    tools = _synonyms()[2]
    *special, general = tools.items()
    sections = [top, *(value for key, value in top.items() if isinstance(value, dict) and key != "lq")]
    given = {_word(key) for section in sections for key in section} - {*levels[""]}
    scores = {
        tool: sum(1 if any(key in keys for other, keys in tools.items() if other != tool) else 2 for key in own & given)
        for tool, own in special
    }
    tool = max(scores, key=lambda name: scores[name])
    if scores[tool] < 4:
        tool = general[0]
        if len(general[1] & given) < 3 or len(given) < len({*levels[""]} & {*top}):
            return None
    values = [{key: item for key, item in section.items() if not isinstance(item, dict)} for section in sections]
    pairs = [(key, here) for section in values for key, here in _counterparts(section, levels) if key != here]
    shown = ", ".join(f"{key} is {here}" for key, here in dict.fromkeys(pairs))
    return f"this is a file for {tool}, not for mlx_lm.lora; here " + (shown or "nothing corresponds to its keys")


def _renamed(right: str, value: object, top: Mapping[str, Any]) -> str:
    if right == "num_layers" and isinstance(value, list):  # `lora_layers: [q_proj]` means the modules
        right = "lora_parameters.keys"
    if _given(right, top):
        return f"remove it, '{right}' is given"
    fits = fitting(right, value)
    if fits is None or isinstance(fits, dict | list):
        return f"write '{right}'"
    instead = " in place of 'iters'" if right == "lq.epochs" and _given("iters", top) else ""
    return f"write '{right}: {fits if isinstance(fits, str) else as_written(fits)}'{instead}"


def fitting(key: str, value: Any) -> Any:
    """Return the value of another trainer as the key takes it; None if it does not fit."""
    field = JobSpec.model_fields.get(key)
    if field is not None and isinstance(field.default, bool) and isinstance(value, str):
        return value.lower() not in ("false", "none", "no")
    if field is not None and get_origin(field.annotation) is Literal:
        options = sorted(get_args(field.annotation), key=len, reverse=True)
        return next((option for option in options if option in str(value).lower()), None)
    nested = functools.reduce(lambda inner, part: {part: inner}, reversed(key.split(".")), value)
    try:
        JobSpec.model_validate_json(json.dumps(nested), strict=True)
    except ValidationError as error:
        return value if all(detail["type"] == "missing" for detail in error.errors()) else None
    return value


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
    inner = top.get("lora_parameters")
    places = (inner if isinstance(inner, dict) else {}, top)
    ranks = [
        level[key] for level in places for key in ("rank", "r", "lora_rank", "lora_r") if level.get(key) is not None
    ]
    rank = ranks[0] if ranks else 8
    if not _is_number(alpha) or not _is_number(rank) or rank <= 0:
        return "write 'lora_parameters.scale', which is alpha / rank"
    return f"write 'lora_parameters.scale: {alpha / rank:g}', which is alpha / rank = {alpha:g} / {rank:g}"


def _is_number(value: object) -> TypeGuard[float]:
    """Return whether the value is a number small enough for the calculation."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def _warmup(ratio: object, top: Mapping[str, Any]) -> str:
    share = f"{100 * ratio:g}%" if _is_number(ratio) and 0 <= ratio <= 1 else "3%"
    return f"write 'lr_schedule.warmup: {share}', a share of the run"


def optimizer_argument(key: str, value: object, top: Mapping[str, Any]) -> str | None:
    """Return where an argument of an optimizer belongs; None if the key is no such argument."""
    argument = _ARGUMENTS.get(key, key)
    owners = [name for name, arguments in OPTIMIZERS.items() if argument in arguments]
    if key not in _ARGUMENTS or not owners:
        return None
    name = fitting("optimizer", top.get("optimizer", "adam")) or "adam"
    owner = name if name in owners else "adamw" if "adamw" in owners else owners[0]
    shown = "[0.9, 0.999]" if argument == "betas" else as_written(value)
    change = "" if owner == name else f"'optimizer: {owner}', because {as_written(name)} has no {argument}, and "
    return f"it is an argument of the optimizer: write {change}'optimizer_config: {{{owner}: {{{argument}: {shown}}}}}'"


def _misplaced(word: str, under: str, levels: Levels) -> str | None:
    """Suggest the right place for a key that exists elsewhere in the file."""
    places = [level for level, keys in levels.items() if word in keys and level != under]
    places = [level for level in places if "." not in level or word not in _WEAK or under.startswith("lq")]
    if not places:
        return None
    place = "lq" if "lq" in places else places[0]
    return f"it belongs under '{place}'" if place else "it belongs at the top of the file"


def _nearest(word: str, under: str, levels: Levels) -> str:
    keys = levels.get(under, ())
    if under == "lq":
        keys = (*keys, MATRIX)
    near = difflib.get_close_matches(word, keys, n=1, cutoff=_NEAR)
    if near:
        return f"did you mean '{near[0]}'?"
    if len(keys) > 12:
        return "remove it; lq config schema prints every key"
    return f"the keys here are {', '.join(keys)}"
