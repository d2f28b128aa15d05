"""What a key expects, in words, derived from the annotations of jobs/model/spec.py."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, SecretStr

from configs.errors import KeyPath
from jobs.model.spec import parse_duration, parse_size
from jobs.model.text import listed

_PARSED: dict[Any, str] = {
    parse_duration: "a duration like 90s, 10min or 1h",
    parse_size: "a size like 512MB or 2GB",
}
_SINGLE: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    SecretStr: "text",
    dict: "a mapping",
}
_PLURAL: dict[Any, str] = {int: "whole numbers", float: "numbers", str: "text", dict: "mappings"}
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


def expected(model: type[BaseModel], key_path: KeyPath) -> str | None:
    """Return what a value of a file must be, such as `a whole number greater than 0`; None inside a free mapping."""
    annotation: Any = model
    limits: Sequence[Any] = ()
    for part in key_path:
        if isinstance(part, int):
            annotation, limits = item_type(annotation), ()
            continue
        if get_origin(annotation) is dict:
            annotation, limits = get_args(annotation)[1], ()
            continue
        inner = model_of(annotation)
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


def _kind(plain: Any) -> str:
    origin = get_origin(plain)
    if origin is Literal:
        return listed(get_args(plain), "or")
    if origin is tuple:
        inner = item_type(plain)
        return f"a list of {'mappings' if model_of(inner) else _PLURAL.get(get_origin(inner) or inner, _kind(inner))}"
    if origin in (Union, types.UnionType):
        return listed((_kind(member) for member in get_args(plain) if member is not types.NoneType), "or")
    return _SINGLE.get(origin or plain, "a mapping")


def _range(limits: Sequence[Any]) -> str:
    parts = [
        words.format(getattr(limit, name))
        for limit in limits
        for name, words in _LIMITS.items()
        if getattr(limit, name, None) is not None
    ]
    return " and".join(parts)
