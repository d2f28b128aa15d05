"""The JSON Schema of a job file, with which editors complete keys and check values."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, BeforeValidator

from configs.matrix import EXCLUDE
from configs.suggestions import MATRIX
from configs.validation import bare
from jobs.model import spec
from jobs.model.spec import JobSpec, LqSpec, parse_duration, parse_size

_TEXTS: dict[Any, dict[str, Any]] = {
    parse_duration: {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(s|sec|min|m|h)?\s*$"},
    parse_size: {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*[kKmMgGtT]?i?[bB]?\s*$"},
}
_MATRIX: dict[str, Any] = {
    "type": "object",
    "description": "makes several jobs: keys of the file with lists of values; each combination is a job",
    "additionalProperties": {
        "anyOf": [
            {"type": "array", "minItems": 1},
            {"type": "object", "minProperties": 1, "additionalProperties": {"type": "object"}},
        ]
    },
    "properties": {EXCLUDE: {"type": "array", "items": {"type": "object"}, "description": "combinations to leave out"}},
}
# after a BeforeValidator, pydantic writes limits under its own names
_LIMITS = {"gt": "exclusiveMinimum", "ge": "minimum"}


def job_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) of a job file."""
    schema = JobSpec.model_json_schema()
    for name, part in ((JobSpec.__name__, schema), *schema["$defs"].items()):
        if hasattr(spec, name):
            _allow_units(getattr(spec, name), part["properties"])
    own = schema["$defs"][LqSpec.__name__]["properties"]
    own[MATRIX] = _MATRIX
    mapping = {"discriminator": own["objective"].pop("discriminator"), "oneOf": own["objective"].pop("oneOf")}
    own["objective"]["anyOf"] = [{"enum": list(mapping["discriminator"]["mapping"])}, mapping]
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lq job file",
        "description": "MLX-LM's LoRA YAML, key for key, and the keys of lq under 'lq'.",
    }
    return head | {key: value for key, value in schema.items() if key not in head}


def _allow_units(model: type[BaseModel], properties: dict[str, Any]) -> None:
    """Accept text for numbers that can have a unit; pydantic's schema only accepts the number."""
    for key, field in model.model_fields.items():
        metadata = (*bare(field.annotation)[1], *field.metadata)
        validators = [item.func for item in metadata if isinstance(item, BeforeValidator)]
        text = next((_TEXTS[function] for function in validators if function in _TEXTS), None)
        if text is not None:
            properties[key] = _or_text(properties[key], text)


def _or_text(number: dict[str, Any], text: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that accepts a number or a text."""
    outside = ("title", "description", "default")
    around = {name: value for name, value in number.items() if name in outside}
    inner = {name: value for name, value in number.items() if name not in outside}
    options = [
        {_LIMITS.get(name, name): value for name, value in option.items()} for option in inner.get("anyOf", [inner])
    ]
    return around | {"anyOf": [*options[:1], text, *options[1:]]}
