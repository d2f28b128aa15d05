"""docs/reference/configuration.md: every key of a job file and of settings.yaml, from the models that check them."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from configs.schema import job_schema
from configs.settings import Settings, parse_hour
from configs.suggestions import MATRIX
from jobs.model import spec
from jobs.model.spec import JobSpec, LqSpec
from tests.docs.pages import filled, row

PAGE = "docs/reference/configuration.md"

_DURATION = "duration: seconds, or `90s`, `10min`, `1h`"
_SIZE = "size: bytes, or `512MB`, `2GB` (1 KB = 1024 bytes)"
_READ_BY: dict[Any, str] = {
    spec.parse_duration: _DURATION,
    spec.parse_size: _SIZE,
    spec.parse_limit: "a share such as `85%`, or a size such as `12GB`",
    spec.parse_share: "a share, `0%` to `100%`",
    spec.parse_delta: "nats such as `0.001`, or standard errors such as `1se`",
    spec.parse_span: "hours such as `22:00-07:30`",
    parse_hour: "an hour such as `07:00`",
}
_NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false", SecretStr: "URL", dict: "mapping"}
_LIMITS = {"ge": "from {}", "gt": "above {}", "le": "to {}", "lt": "below {}", "max_length": "at most {}"}


def page() -> str:
    """Return the text of the page."""
    return filled(PAGE, job=lambda: _tables(JobSpec, ""), settings=lambda: _tables(Settings, ""))


def keys(model: type[BaseModel], place: str = "") -> Iterator[str]:
    """Yield every key below a model, dotted, lists left out: `lq.retry.max_restarts`."""
    for name, field in model.model_fields.items():
        yield f"{place}{name}"
        below = _model_of(field)
        if below is not None and not (model is Settings and below is LqSpec):
            yield from keys(below, f"{place}{name}.")


def _tables(model: type[BaseModel], place: str) -> str:
    head = ["| key | takes | default | meaning |", "|---|---|---|---|"]
    rows = [_row(place, name, field) for name, field in model.model_fields.items()]
    if model is LqSpec:
        description = job_schema()["$defs"][LqSpec.__name__]["properties"][MATRIX]["description"]
        rows.append(row(f"`{place}{MATRIX}`", "mapping", "absent", description))
    parts = ["\n".join([*head, *rows])]
    for name, field in model.model_fields.items():
        below = _model_of(field)
        if below is not None and not (model is Settings and below is LqSpec):
            parts += [f"### {place}{name}", _about(below), _tables(below, f"{place}{name}.")]
    return "\n\n".join(part for part in parts if part)


def _about(model: type[BaseModel]) -> str:
    """Return what a part is for, from its docstring: `` `lq.retry`: what happens after a death. ``."""
    text = " ".join((model.__doc__ or "").split())
    _, colon, meaning = text.partition("`: ")
    return f"{meaning[:1].upper()}{meaning[1:]}" if colon else text


def _row(place: str, name: str, field: FieldInfo) -> str:
    below = _model_of(field)
    if below is not None:
        where = "see `lq` of a job file" if below is LqSpec and field.description else f"[below](#{place}{name})"
        meaning = field.description or _about(below)
        return row(
            f"`{place}{name}`", where.replace("#" + place, "#" + place.replace(".", "")), _default(field), meaning
        )
    return row(f"`{place}{name}`", takes(field), _default(field), field.description or "")


def takes(field: FieldInfo) -> str:
    """Return in words what a key takes, and within which limits."""
    return _words(field.annotation, field.metadata)


def _words(annotation: Any, metadata: list[Any]) -> str:
    for mark in metadata:
        read_by = getattr(mark, "func", None)
        if read_by in _READ_BY:
            return _with_limits(_READ_BY[read_by], metadata)
    return _with_limits(_plain(annotation), metadata)


def _plain(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _words(inner[0], list(inner[1:]))
    if origin is Literal:
        return " or ".join(f"`{str(value).lower() if isinstance(value, bool) else value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_plain(one) for one in inner if one is not type(None))
    if origin is tuple:
        return f"list: {_plain(inner[0])}"
    return _NAMES.get(origin or annotation, getattr(annotation, "__name__", str(annotation)))


def _with_limits(words: str, metadata: list[Any]) -> str:
    limits = [
        text.format(f"{value:g}" if value < 1e6 else "2^63")
        for mark in metadata
        for part in getattr(mark, "metadata", [mark])  # a Field inside Annotated carries its limits with it
        for name, text in _LIMITS.items()
        if (value := getattr(part, name, None)) is not None
    ]
    return f"{words}, {' and '.join(limits)}" if limits else words


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    return _value(value, takes(field))


def _value(value: Any, words: str) -> str:
    if value is None:
        return "absent"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple | dict):
        return "`[]`" if isinstance(value, tuple) else "`{}`"
    if words.startswith(_DURATION[:8]):
        return f"`{value / 60:g}min`" if value >= 120 else f"`{value:g}s`"
    if words.startswith(_SIZE[:4]) and value:
        return f"`{value / (1 << 30):g}GB`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model below a key, also below a list and where the key may be absent; None for a plain value."""
    found = [one for one in _types(field.annotation) if isinstance(one, type) and issubclass(one, BaseModel)]
    return found[0] if found else None


def _types(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in get_args(annotation):
        yield from _types(inner)
