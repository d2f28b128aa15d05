"""Values laid upon a job file before it is checked: those of `--set`, and those of one combination of a matrix.

Each takes the place of what the file says and remembers where it was given, so that a mistake in it is told there.
Whether a key exists and a value fits is the checks' to say.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from configs import yaml_text
from configs.errors import Where, dotted, invalid
from configs.suggestions import MATRIX
from configs.yaml_text import Document
from jobs.model.errors import InvalidInput, Line

IN_MATRIX: Where = ("lq", MATRIX)

_PART = re.compile(r"([^.\[\]]+)((?:\[\d+\])*)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """One value to lay upon a file."""

    where: Where
    value: Any
    lines: Mapping[Where, Line]  # where it and what it holds were given, by the way from the top of the file


def where_of(key: str) -> Where | None:
    """Return `("lq", "notify", "on", 0)` for `lq.notify.on[0]`; None for what is no key.

    What follows `lq.matrix.` is one key, since the keys of a matrix are dotted themselves.
    """
    head = f"{dotted(IN_MATRIX)}."
    if key.startswith(head) and len(key) > len(head):
        return (*IN_MATRIX, key[len(head) :])
    where: list[str | int] = []
    for part in key.split("."):
        found = _PART.fullmatch(part)
        if found is None:
            return None
        where += [found[1], *(int(place) for place in re.findall(r"\d+", found[2]))]
    return tuple(where)


def parse_set(text: str) -> Setting:
    """Read what stands after `--set`: `key=value`, the value as YAML.

    Raises:
        InvalidInput: it is not of this form.
    """
    key, equals, written = text.partition("=")
    key = key.strip()
    where = where_of(key)
    if not equals or where is None:
        raise InvalidInput(f"--set {text}: write key=value, such as learning_rate=1e-5 or lora_parameters.rank=16")
    try:
        value = yaml_text.parse_value(written)
    except ValueError as error:
        raise InvalidInput(f"--set {key}: {error}") from error
    return Setting(where=where, value=value, lines={where: f"--set {key}"})


def lay(document: Document, settings: Sequence[Setting]) -> Document:
    """Return a document that says what it said, but for some values; of one key's the last counts.

    Raises:
        ConfigInvalid: a key leads into something that holds no keys, or beyond a list.
    """
    value, lines = document.value, dict(document.lines)
    for setting in settings:
        where = setting.where
        try:
            value = _put(value, where, setting.value)
        except LookupError as error:
            raise invalid(document.source, setting.lines[where], f"{dotted(where)}: {error.args[0]}") from error
        lines = {place: line for place, line in lines.items() if place[: len(where)] != where} | dict(setting.lines)
        for length in range(1, len(where)):  # a mapping that came with it was given where it was
            lines.setdefault(where[:length], setting.lines[where])
    return Document(source=document.source, value=value, lines=lines)


def _put(inside: Any, where: Where, new: Any) -> Any:
    if not where:
        return new
    head, rest = where[0], where[1:]
    if isinstance(head, int):
        if not isinstance(inside, list) or head >= len(inside):
            raise LookupError(f"there is no [{head}]; the list must be in the file, and long enough")
        return [*inside[:head], _put(inside[head], rest, new), *inside[head + 1 :]]
    if inside is not None and not isinstance(inside, dict):
        raise LookupError(f"'{head}' cannot stand under what is not a mapping")
    found = inside or {}
    return {**found, head: _put(found.get(head), rest, new)}
