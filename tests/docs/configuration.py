"""docs/reference/configuration.md: every key of a job file and of settings.yaml, from their pydantic models."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from configs.schema import job_schema
from configs.settings import Settings, parse_hour
from configs.suggestions import MATRIX
from configs.validation import choices_of
from jobs.model import spec
from jobs.model.spec import JobSpec, LqSpec
from tests.docs.pages import filled, row

PAGE = "docs/reference/configuration.md"

_DURATION = "duration: seconds, or `90s`, `10min`, `1h`"
_SIZE = "size: bytes, or `512MB`, `2GB` (1 KB = 1024 bytes)"
_FORMATS: dict[Any, str] = {
    spec.parse_duration: _DURATION,
    spec.parse_size: _SIZE,
    spec.parse_limit: "a share such as `85%`, or a size such as `12GB`",
    spec.parse_share: "a share, `0%` to `100%`",
    spec.parse_delta: "nats such as `0.001`, or standard errors such as `1se`",
    spec.check_window: "time window such as `22:00-07:30`",
    parse_hour: "a time such as `07:00`",
}
_NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false", SecretStr: "URL", dict: "mapping"}
_LIMITS = {"ge": "from {}", "gt": "above {}", "le": "to {}", "lt": "below {}", "max_length": "at most {}"}


def page() -> str:
    """Return the text of the page."""
    return filled(PAGE, job=lambda: _tables(JobSpec, ""), settings=lambda: _tables(Settings, ""))


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yield every key of a model and of the models inside it, as in `lq.retry.max_restarts`."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        inner = _inner_section(model, field)
        if inner is not None:
            yield from keys(inner, f"{prefix}{name}.")


def _inner_section(model: type[BaseModel], field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a key that gets a section of its own; `defaults` of settings.yaml refers to the job file."""
    inner = None if choices_of(field.annotation) else _model_of(field)
    return None if model is Settings and inner is LqSpec else inner


def _tables(model: type[BaseModel], prefix: str) -> str:
    head = ["| key | type | default | meaning |", "|---|---|---|---|"]
    rows = [_row(prefix, name, field) for name, field in model.model_fields.items()]
    if model is LqSpec:
        description = job_schema()["$defs"][LqSpec.__name__]["properties"][MATRIX]["description"]
        rows.append(row(f"`{prefix}{MATRIX}`", "mapping", "absent", description))
    parts = ["\n".join([*head, *rows])]
    for name, field in model.model_fields.items():
        inner = _inner_section(model, field)
        choices = choices_of(field.annotation)
        if choices:
            parts += [f"### {prefix}{name}", _choices(f"{prefix}{name}", choices)]
        elif inner is not None:
            parts += [f"### {prefix}{name}", _purpose(inner), _tables(inner, f"{prefix}{name}.")]
    return "\n\n".join(part for part in parts if part)


def _choices(key: str, choices: Mapping[str, type[BaseModel]]) -> str:
    """Return a table with a row for each parameter of each choice; `name` alone is the shorthand of a choice."""
    head = ["| name | parameter | type | default | meaning |", "|---|---|---|---|---|"]
    rows = []
    for choice, model in choices.items():
        rows.append(row(f"`{choice}`", "", "", "", _purpose(model)))
        fields = [(name, field) for name, field in model.model_fields.items() if name != "name"]
        rows += [
            row("", f"`{key}.{name}`", type_text(field), _default(field), field.description or "")
            for name, field in fields
        ]
    return "\n".join([*head, *rows])


def _purpose(model: type[BaseModel]) -> str:
    """Return the purpose of a section from its docstring, without the key in front of the colon."""
    text = " ".join((model.__doc__ or "").split())
    _, colon, meaning = text.partition("`: ")
    return f"{meaning[:1].upper()}{meaning[1:]}" if colon else text


def _row(prefix: str, name: str, field: FieldInfo) -> str:
    key, inner = f"{prefix}{name}", _model_of(field)
    if inner is None:
        return row(f"`{key}`", type_text(field), _default(field), field.description or "")
    refers_to_job = inner is LqSpec and field.description
    link = "see `lq` of a job file" if refers_to_job else f"[below](#{key.replace('.', '')})"
    return row(f"`{key}`", link, _default(field), field.description or _purpose(inner))


def type_text(field: FieldInfo) -> str:
    """Return the type and the limits of a key as text."""
    return _annotation_text(field.annotation, field.metadata)


def _annotation_text(annotation: Any, metadata: list[Any]) -> str:
    for item in metadata:
        parser = getattr(item, "func", None)
        if parser in _FORMATS:
            return _with_limits(_FORMATS[parser], metadata)
    return _with_limits(_plain_text(annotation), metadata)


def _plain_text(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _annotation_text(inner[0], list(inner[1:]))
    if origin is Literal:
        return " or ".join(f"`{str(value).lower() if isinstance(value, bool) else value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_plain_text(item) for item in inner if item is not type(None))
    if origin is tuple:
        return f"list: {_plain_text(inner[0])}"
    return _NAMES.get(origin or annotation, getattr(annotation, "__name__", str(annotation)))


def _with_limits(text: str, metadata: list[Any]) -> str:
    limits = [
        template.format(f"{value:g}" if value < 1e6 else "2^63")
        for item in metadata
        for constraint in getattr(item, "metadata", [item])  # a Field inside Annotated contains its limits
        for name, template in _LIMITS.items()
        if (value := getattr(constraint, name, None)) is not None
    ]
    return f"{text}, {' and '.join(limits)}" if limits else text


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    return _value(value, type_text(field))


def _value(value: Any, type_name: str) -> str:
    if value is None:
        return "absent"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple | dict):
        return "`[]`" if isinstance(value, tuple) else "`{}`"
    if type_name.startswith(_DURATION[:8]):
        return f"`{value / 60:g}min`" if value >= 120 else f"`{value:g}s`"
    if type_name.startswith(_SIZE[:4]) and value:
        return f"`{value / (1 << 30):g}GB`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the model of a key, of its list items, or of its optional value; None for a plain value."""
    types_ = (item for item in _types(field.annotation) if isinstance(item, type) and issubclass(item, BaseModel))
    return next(types_, None)


def _types(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in get_args(annotation):
        yield from _types(inner)
