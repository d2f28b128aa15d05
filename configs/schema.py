"""The JSON Schema of a job file, for editors: they complete the keys and check the values while one writes."""

from __future__ import annotations

from typing import Any

from configs.matrix import EXCLUDE
from configs.suggestions import MATRIX
from jobs.spec import Checkpointing, JobSpec, LqSpec, parse_duration, parse_size

_TEXTS = {
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
    _also_text(schema["properties"], "clear_cache_threshold", parse_size)
    _also_text(schema["$defs"][Checkpointing.__name__]["properties"], "every", parse_duration)
    schema["$defs"][LqSpec.__name__]["properties"][MATRIX] = _MATRIX
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lq job file",
        "description": "A LoRA YAML of MLX-LM, key for key, and what lq adds under 'lq'.",
    }
    return head | {key: value for key, value in schema.items() if key not in head}


def _also_text(properties: dict[str, Any], key: str, read_by: Any) -> None:
    """A number that may be written with its unit: pydantic's schema knows only the number."""
    outside = ("title", "description", "default")
    number = {_LIMITS.get(name, name): value for name, value in properties[key].items() if name not in outside}
    around = {name: value for name, value in properties[key].items() if name in outside}
    properties[key] = around | {"anyOf": [number, _TEXTS[read_by]]}
