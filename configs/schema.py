"""The JSON Schema of a job file, for editors: they complete the keys and check the values while one writes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, BeforeValidator

from configs.expectations import bare
from configs.matrix import EXCLUDE
from configs.suggestions import MATRIX
from jobs.model import spec
from jobs.model.spec import JobSpec, LqSpec, parse_duration, parse_size

_TEXTS: dict[Any, dict[str, Any]] = {
    parse_duration: {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(s|sec|min|m|h)?\s*$"},
    parse_size: {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*[kKmMgGtT]?i?[bB]?\s*$"},
}
_MATRIX: dict[str, Any] = {
    "type": "object",
    "description": "makes several jobs of the file: keys of it with lists of values, every combination a job",
    "additionalProperties": {
        "anyOf": [
            {"type": "array", "minItems": 1},
            {"type": "object", "minProperties": 1, "additionalProperties": {"type": "object"}},
        ]
    },
    "properties": {EXCLUDE: {"type": "array", "items": {"type": "object"}, "description": "combinations to leave out"}},
}
# behind a function that reads text, pydantic writes limits under its own names
_LIMITS = {"gt": "exclusiveMinimum", "ge": "minimum"}


def job_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) of a job file."""
    schema = JobSpec.model_json_schema()
    for name, part in ((JobSpec.__name__, schema), *schema["$defs"].items()):
        _allow_units(getattr(spec, name), part["properties"])
    schema["$defs"][LqSpec.__name__]["properties"][MATRIX] = _MATRIX
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lq job file",
        "description": "A LoRA YAML of MLX-LM, key for key, and what lq adds under 'lq'.",
    }
    return head | {key: value for key, value in schema.items() if key not in head}


def _allow_units(model: type[BaseModel], properties: dict[str, Any]) -> None:
    """Let numbers that may be written with their unit be text too: pydantic's schema knows only the number."""
    for key, field in model.model_fields.items():
        marks = [mark for mark in (*bare(field.annotation)[1], *field.metadata) if isinstance(mark, BeforeValidator)]
        text = next((_TEXTS[mark.func] for mark in marks if mark.func in _TEXTS), None)
        if text is not None:
            properties[key] = _also(properties[key], text)


def _also(said: dict[str, Any], text: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a number with text beside it."""
    outside = ("title", "description", "default")
    around = {name: value for name, value in said.items() if name in outside}
    inner = {name: value for name, value in said.items() if name not in outside}
    plain = [{_LIMITS.get(name, name): value for name, value in one.items()} for one in inner.get("anyOf", [inner])]
    return around | {"anyOf": [*plain[:1], text, *plain[1:]]}
