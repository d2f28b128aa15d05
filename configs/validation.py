"""Strict validation of a Document with a pydantic model. Every mistake is reported with its line."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from configs.errors import KeyPath, Problem, as_written, dotted
from configs.expectations import expected, model_of
from configs.suggestions import Levels, unknown_key
from configs.yaml_text import Document
from jobs.model.errors import ConfigInvalid, located

Model = TypeVar("Model", bound=BaseModel)

_SPECIAL_TEXTS = {
    ("train",): "must be true, because lq only queues training; to measure only, use mlx_lm.lora --test",
}


def _show_all(key_path: KeyPath, value: object) -> bool:
    return True


def require_format(document: Document, given: object) -> None:
    """Refuse a file of a newer format before any other check.

    Raises:
        ConfigInvalid: the format is newer.
    """
    if isinstance(given, int) and given > 1:
        text = f"has format {given}, but this lq reads format 1: update lq"
        raise ConfigInvalid(located(document.source, None, text))


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnownKeys:
    """The known keys of a file, and a problem for each unknown key."""

    value: dict[str, Any]
    problems: list[Problem]


def known_keys(document: Document, model: type[BaseModel], *, keep_nulls: bool = False) -> KnownKeys:
    """Remove unknown keys, which are problems, and null values, which mean the default, as in MLX-LM.

    Args:
        document: the file.
        model: its keys.
        keep_nulls: keep nulls in free mappings, because lq wrote the file.
    """
    reader = _KeyReader(document, model, keep_nulls=keep_nulls)
    return KnownKeys(value=reader.mapping(document.value, model, ()), problems=reader.problems)


class _KeyReader:
    def __init__(self, document: Document, model: type[BaseModel], *, keep_nulls: bool) -> None:
        self.problems: list[Problem] = []
        self._document = document
        self._levels = levels(model)
        self._keep_nulls = keep_nulls

    def mapping(self, given: dict[str, Any], model: type[BaseModel], key_path: KeyPath) -> dict[str, Any]:
        kept = {}
        for key, value in given.items():
            if key not in model.model_fields:
                self._unknown((*key_path, key), value)
            elif value is not None:
                kept[key] = self._value(value, model.model_fields[key].annotation, (*key_path, key))
        return kept

    def _value(self, value: Any, annotation: Any, key_path: KeyPath) -> Any:
        model = model_of(annotation)
        if model is not None and isinstance(value, dict):
            return self.mapping(value, model, key_path)
        if model is not None and isinstance(value, list):
            return [self._value(item, model, (*key_path, index)) for index, item in enumerate(value)]
        if isinstance(value, float) and value.is_integer():
            return int(value)  # `iters: 1e3`
        return value if self._keep_nulls else _without_nulls(value)

    def _unknown(self, key_path: KeyPath, value: object) -> None:
        text = unknown_key(key_path, value, top=self._document.value, levels=self._levels)
        self.problems.append(Problem(key_path=key_path, line=self._document.line(key_path), text=text))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def levels(model: type[BaseModel], under: str = "") -> Levels:
    """Return the valid keys of a file by the dotted key above them."""
    keys = {under: tuple(model.model_fields)}
    for key, field in model.model_fields.items():
        inner = model_of(field.annotation)
        if inner is not None:
            keys |= levels(inner, f"{under}.{key}" if under else key)
    return keys


def check(
    document: Document,
    model: type[Model],
    value: dict[str, Any],
    *,
    may_show: Callable[[KeyPath, object], bool] = _show_all,
) -> tuple[Model | None, list[Problem]]:
    """Check types and ranges; return the model, or None and at least one problem.

    Args:
        document: for the lines.
        model: the model of the values.
        value: from `known_keys`.
        may_show: returns whether a message may quote a value.
    """
    try:
        # as JSON, because in strict mode pydantic otherwise requires tuples, which no file has
        return model.model_validate_json(json.dumps(value), strict=True), []
    except ValidationError as error:
        details = error.errors(include_url=False)
    problems: dict[KeyPath, Problem] = {}
    for detail in details:
        key_path = _place(document, detail["loc"])
        text = _text(model, key_path, detail, may_show)
        problems.setdefault(key_path, Problem(key_path=key_path, line=document.line(key_path), text=text))
    return None, list(problems.values())


def _place(document: Document, loc: tuple[int | str, ...]) -> KeyPath:
    """Return the key path of an error; pydantic's location also contains the members of unions."""
    key_path: KeyPath = ()
    for part in loc:
        if (*key_path, part) in document.lines:
            key_path = (*key_path, part)
    return key_path


def _text(
    model: type[BaseModel], key_path: KeyPath, detail: ErrorDetails, may_show: Callable[[KeyPath, object], bool]
) -> str:
    if detail["type"] == "missing":
        return f"{dotted(key_path)}: '{detail['loc'][-1]}' is missing"
    if key_path in _SPECIAL_TEXTS:
        return f"{dotted(key_path)}: {_SPECIAL_TEXTS[key_path]}"
    if detail["type"] == "value_error":
        requirement = str(detail["ctx"]["error"])
    else:
        requirement = expected(model, key_path) or "another kind of value"
    value = detail["input"]
    return f"{dotted(key_path)}: must be {requirement}" + (
        f", not {as_written(value)}" if may_show(key_path, value) else ""
    )
