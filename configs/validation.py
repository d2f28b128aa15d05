"""Strict validation of a Document with a pydantic model. Every mistake is reported with its line."""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from configs import yaml_text
from configs.errors import KeyPath, Problem, as_written, dotted
from configs.suggestions import Levels, fitting, optimizer_argument, unknown_key
from configs.yaml_text import Document
from jobs.model.errors import ConfigInvalid, Line, located
from jobs.model.objective import written
from jobs.model.spec import parse_duration, parse_size
from jobs.model.text import listed

Model = TypeVar("Model", bound=BaseModel)

_SPECIAL_TEXTS = {
    ("train",): "must be true, because lq only queues training; to measure only, use mlx_lm.lora --test",
}


def require_format(document: Document, given: object) -> None:
    """Refuse a file of a newer format before any other check."""
    if isinstance(given, int) and given > 1:
        text = f"has format {given}, but this lq reads format 1: update lq"
        raise ConfigInvalid(located(document.source, None, text))


class KnownKeys:
    """The known keys of a file, and a problem for each unknown key."""

    def __init__(self, document: Document, model: type[BaseModel], *, keep_nulls: bool = False) -> None:
        """Leave out null values, which mean the default, as in MLX-LM.

        `keep_nulls` keeps nulls in free mappings, because lq wrote the file.
        """
        self.problems: list[Problem] = []
        self._document, self._levels, self._keep_nulls = document, levels(model), keep_nulls
        self.value = self._mapping(document.value, model, ())

    def _mapping(self, given: dict[str, Any], model: type[BaseModel], key_path: KeyPath) -> dict[str, Any]:
        kept = {}
        for key, value in given.items():
            if key not in model.model_fields and not key_path and key in self._document.anchors:
                continue  # it only holds what other keys use
            if key not in model.model_fields:
                below = (*key_path, key)
                text = unknown_key(below, value, top=self._document.value, levels=self._levels)
                self.problems.append(Problem(key_path=below, line=self._document.line(below), text=text))
            elif value is not None:
                kept[key] = self._value(value, model.model_fields[key].annotation, (*key_path, key))
        return kept

    def _value(self, value: Any, annotation: Any, key_path: KeyPath) -> Any:
        choices = choices_of(annotation)
        if choices:
            return self._chosen(written(value), choices, key_path)
        model = model_of(annotation)
        if model is not None and isinstance(value, dict):
            return self._mapping(value, model, key_path)
        if model is not None and isinstance(value, list):
            return [self._value(item, model, (*key_path, index)) for index, item in enumerate(value)]
        if isinstance(value, float) and value.is_integer():
            return int(value)  # `iters: 1e3`
        return value if self._keep_nulls else _without_nulls(value)

    def _chosen(self, value: Any, choices: Mapping[str, type[BaseModel]], key_path: KeyPath) -> Any:
        """Read a mapping whose `name` decides which keys it may have."""
        name = value.get("name") if isinstance(value, dict) else None
        model = choices.get(name) if isinstance(name, str) else None
        if model is None:
            return value
        for key in value.keys() - model.model_fields.keys():
            own = [field for field in model.model_fields if field != "name"]
            takes = f"takes {listed(own, 'and')}" if own else "has no parameters"
            others = [other for other, each in choices.items() if key in each.model_fields]
            hint = f"; it belongs to {listed(others, 'and')}" if others else ""
            text = f"unknown key '{dotted((*key_path, key))}'; {name} {takes}{hint}"
            self.problems.append(Problem(key_path=key_path, line=self._document.line((*key_path, key)), text=text))
        return self._mapping({key: item for key, item in value.items() if key in model.model_fields}, model, key_path)


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
        choices = choices_of(field.annotation).values()
        if choices:
            keys[f"{under}.{key}"] = tuple(dict.fromkeys(name for each in choices for name in each.model_fields))
        if inner is not None:
            keys |= levels(inner, f"{under}.{key}" if under else key)
    return keys


def check(
    document: Document,
    model: type[Model],
    value: dict[str, Any],
    *,
    may_show: Callable[[KeyPath, object], bool] = lambda key_path, value: True,
) -> tuple[Model | None, list[Problem]]:
    """Check types and ranges; return the model, or None and at least one problem.

    `may_show` returns whether a message may quote a value.
    """
    try:
        # as JSON, because in strict mode pydantic otherwise requires tuples, which no file has
        return model.model_validate_json(json.dumps(value), strict=True), []
    except ValidationError as error:
        details = error.errors(include_url=False)
    problems: dict[KeyPath, Problem] = {}
    for detail in details:
        key_path = _place(document, detail["loc"])
        text = _text(document, model, key_path, detail, may_show)
        problems.setdefault(key_path, Problem(key_path=key_path, line=document.line(key_path), text=text))
    return None, list(problems.values())


def _place(document: Document, loc: tuple[int | str, ...]) -> KeyPath:
    """Return the key path of an error; pydantic's location also contains the members of unions."""
    key_path: KeyPath = ()
    for part in loc:
        if (*key_path, part) in document.lines or (part == "beta" and (*key_path, "lambda") in document.lines):
            key_path = (*key_path, part)
    return key_path


def _text(
    document: Document,
    model: type[BaseModel],
    key_path: KeyPath,
    detail: ErrorDetails,
    may_show: Callable[[KeyPath, object], bool],
) -> str:
    value, named = detail["input"], dotted(key_path)
    if detail["type"] == "missing":
        return f"{named}: '{detail['loc'][-1]}' is missing"
    if key_path in _SPECIAL_TEXTS and value != "true":
        return f"{named}: {_SPECIAL_TEXTS[key_path]}"
    if key_path[:1] == ("optimizer_config",) and len(key_path) == 2:
        advice = optimizer_argument(str(key_path[1]), value, document.value)
        if advice is not None:
            return f"{named}: {advice}"
    if detail["type"] == "value_error":
        requirement = str(detail["ctx"]["error"])
    else:
        requirement = expected(model, key_path, detail["loc"]) or "another kind of value"
    if detail["type"] == "union_tag_not_found" and isinstance(value, dict):
        return f"{named}: 'name' is missing; it must be {requirement}"
    if detail["type"] == "union_tag_invalid":
        value = value["name"]
    if not may_show(key_path, value):
        return f"{named}: must be {requirement}"
    option = fitting(named, value) if named in ("optimizer", "fine_tune_type") else None
    remedy = f"; write {option}" if option is not None else _remedy(requirement, value, document.line(key_path))
    return f"{named}: must be {requirement}, not {as_written(value)}{remedy}"


def _remedy(requirement: str, value: object, line: Line | None) -> str:
    """Return how to write a value that only has the wrong form: text in place of a number, or no list."""
    if isinstance(value, str) and requirement.startswith(("a number", "a whole number", "true")):
        with suppress(ValueError):
            if isinstance(yaml_text.parse_value(value), bool | int | float):
                return f"; write {value} without quotes"
    fits = isinstance(value, str) or (isinstance(value, int | float) and not isinstance(value, bool))
    if requirement.startswith("a list of") and fits and ("numbers" in requirement or isinstance(value, str)):
        return f"; write {line}=[{value}], in quotes" if isinstance(line, str) else f"; write [{value}]"
    return ""


# --- what a value must be, in words, from the annotations of the model ---

_PARSED: dict[Any, str] = {
    parse_duration: "a duration like 90s, 10min or 1h",
    parse_size: "a size like 512MB or 2GB",
}
_KINDS: dict[Any, tuple[str, str]] = {
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "text"),
    SecretStr: ("text", "text"),
}
_LIMITS = {
    "gt": " greater than {}",
    "ge": " of {} or more",
    "lt": " less than {}",
    "le": " at most {}",
    "min_length": " that is not empty",
}


def item_type(annotation: Any) -> Any:
    """Return the item type of a list, or the annotation itself if it is not a list."""
    plain, _ = bare(annotation)
    return get_args(plain)[0] if get_origin(plain) is tuple else plain


def model_of(annotation: Any) -> type[BaseModel] | None:
    """Return the model of a mapping, or of the mappings in a list; None for other annotations."""
    inner = item_type(annotation)
    return inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None


def choices_of(annotation: Any) -> dict[str, type[BaseModel]]:
    """Return the models between which the key `name` of a mapping decides, by name; empty for other annotations."""
    plain, _ = bare(annotation)
    members = get_args(plain) if get_origin(plain) in (Union, types.UnionType) else ()
    models = [member for member in members if isinstance(member, type) and issubclass(member, BaseModel)]
    return {model.model_fields["name"].default: model for model in models}


def bare(annotation: Any) -> tuple[Any, list[Any]]:
    """Strip `| None` and Annotated; return the type and the metadata of Annotated."""
    if get_origin(annotation) is Annotated:
        plain, metadata = bare(get_args(annotation)[0])
        return plain, [*metadata, *annotation.__metadata__]
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not types.NoneType]
        if len(members) == 1:
            return bare(members[0])
    return annotation, []


def expected(model: type[BaseModel], key_path: KeyPath, loc: Sequence[int | str] = ()) -> str | None:
    """Return what a value of a file must be, such as `a whole number greater than 0`; None inside a free mapping.

    Args:
        model: of the file.
        key_path: of the value.
        loc: pydantic's location, which also names the choice between several models.
    """
    annotation: Any = model
    limits: Sequence[Any] = ()
    for part in key_path:
        if isinstance(part, int):
            annotation, limits = item_type(annotation), ()
            continue
        if get_origin(annotation) is dict:
            annotation, limits = get_args(annotation)[1], ()
            continue
        choices = choices_of(annotation)
        inner = next((choices[tag] for tag in loc if tag in choices), None) if choices else model_of(annotation)
        if inner is None or part not in inner.model_fields:
            return None
        field = inner.model_fields[part]
        annotation, limits = field.annotation, field.metadata
    return _words(annotation, limits)


def _words(annotation: Any, limits: Sequence[Any]) -> str:
    plain, more = bare(annotation)
    limits = [*limits, *more]
    parsed = [_PARSED.get(limit.func) for limit in limits if isinstance(limit, BeforeValidator)]
    return next(filter(None, parsed), _kind(plain)) + _range(limits)


def _kind(annotation: Any, *, plural: bool = False) -> str:
    plain, _ = bare(annotation)
    origin = get_origin(plain)
    if origin is Literal:
        return listed((as_written(each) if isinstance(each, bool) else each for each in get_args(plain)), "or")
    if origin is tuple:
        return f"a list of {_kind(item_type(plain), plural=True)}"
    choices = choices_of(plain)
    if choices:
        return listed(choices, "or")
    if origin in (Union, types.UnionType):
        members = [member for member in get_args(plain) if member is not types.NoneType]
        return listed((_kind(member, plural=plural) for member in members), "or")
    return _KINDS.get(plain, ("a mapping", "mappings"))[plural]


def _range(limits: Sequence[Any]) -> str:
    parts = [
        words.format(getattr(limit, name))
        for limit in limits
        for name, words in _LIMITS.items()
        if getattr(limit, name, None) is not None
    ]
    return " and".join(parts)
