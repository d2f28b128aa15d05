"""Values that replace those of a job file before it is checked: `--set`, and the values of one matrix combination.

An override records its origin, so that an error in its value names that place. The checks that follow decide
whether the key exists and the value is valid.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from configs import yaml_text
from configs.errors import KeyPath, dotted, invalid
from configs.suggestions import MATRIX
from configs.yaml_text import Document
from jobs.model.errors import InvalidInput, Line
from jobs.model.objective import written

IN_MATRIX: KeyPath = ("lq", MATRIX)
IN_OBJECTIVE: KeyPath = ("lq", "objective")

_PART = re.compile(r"([^.\[\]]+)((?:\[\d+\])*)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Override:
    """One value that replaces a value of the file."""

    key_path: KeyPath
    value: Any
    lines: Mapping[KeyPath, Line]  # where the value and its parts were given, by key path from the top of the file


def parse_key(key: str) -> KeyPath | None:
    """Return `("lq", "notify", "on", 0)` for `lq.notify.on[0]`; None if it is not a key.

    Everything after `lq.matrix.` is one key, because the keys of a matrix contain dots themselves.
    """
    head = f"{dotted(IN_MATRIX)}."
    if key.startswith(head) and len(key) > len(head):
        return (*IN_MATRIX, key[len(head) :])
    key_path: list[str | int] = []
    for part in key.split("."):
        match = _PART.fullmatch(part)
        if match is None:
            return None
        key_path += [match[1], *(int(index) for index in re.findall(r"\d+", match[2]))]
    return tuple(key_path)


def parse_override(text: str) -> Override:
    """Read the argument of `--set`: `key=value`, with the value as YAML; raise InvalidInput for another form."""
    key, equals, written = text.partition("=")
    key = key.strip()
    key_path = parse_key(key)
    if not equals or key_path is None:
        raise InvalidInput(f"--set {text}: write key=value, such as learning_rate=1e-5 or lora_parameters.rank=16")
    try:
        value = yaml_text.parse_value(written)
    except ValueError as error:
        raise InvalidInput(f"--set {key}: {error}") from error
    return Override(key_path=key_path, value=value, lines={key_path: f"--set {key}"})


def apply_overrides(document: Document, overrides: Sequence[Override]) -> Document:
    """Return the document with some values replaced. If a key occurs twice, the last override counts."""
    value, lines = document.value, dict(document.lines)
    for override in overrides:
        key_path = override.key_path
        try:
            value = _replace(_with_mapping(value, key_path), key_path, override.value)
        except LookupError as error:
            raise invalid(document.source, override.lines[key_path], f"{dotted(key_path)}: {error.args[0]}") from error
        lines = {at: line for at, line in lines.items() if at[: len(key_path)] != key_path} | dict(override.lines)
        for length in range(1, len(key_path)):  # a new mapping around the value has the line of the value
            lines.setdefault(key_path[:length], override.lines[key_path])
    return dataclasses.replace(document, value=value, lines=lines)


def _with_mapping(value: dict[str, Any], key_path: KeyPath) -> dict[str, Any]:
    """Return the file with the shorthand of an objective as a mapping if `key_path` leads into it."""
    own = value.get("lq")
    if key_path[:2] != IN_OBJECTIVE or len(key_path) == 2 or not isinstance(own, dict) or "objective" not in own:
        return value
    return value | {"lq": own | {"objective": written(own["objective"])}}


def _replace(inside: Any, key_path: KeyPath, new: Any) -> Any:
    if not key_path:
        return new
    head, rest = key_path[0], key_path[1:]
    if isinstance(head, int):
        if not isinstance(inside, list) or head >= len(inside):
            raise LookupError(f"there is no [{head}]; the file must have a list with this index")
        return [*inside[:head], _replace(inside[head], rest, new), *inside[head + 1 :]]
    if inside is not None and not isinstance(inside, dict):
        raise LookupError(f"'{head}' cannot be set, because the value above it is not a mapping")
    mapping = inside or {}
    return {**mapping, head: _replace(mapping.get(head), rest, new)}
