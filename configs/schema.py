"""The JSON Schema of a job file, with which editors complete keys and check values."""

from __future__ import annotations

from typing import Any

from configs.matrix import EXCLUDE
from configs.run_length import SHARE
from configs.suggestions import MATRIX
from jobs.model.spec import JobSpec, LqSpec, LrSchedule

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


def job_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12) of a job file."""
    schema = JobSpec.model_json_schema()
    own = schema["$defs"][LqSpec.__name__]["properties"]
    own[MATRIX] = _MATRIX
    mapping = {"discriminator": own["objective"].pop("discriminator"), "oneOf": own["objective"].pop("oneOf")}
    own["objective"]["anyOf"] = [{"enum": list(mapping["discriminator"]["mapping"])}, mapping]
    schedule = schema["$defs"][LrSchedule.__name__]["properties"]
    for number in (schedule["warmup"], schedule["arguments"]["items"]):
        number["anyOf"] = [{"type": number.pop("type")}, {"type": "string", "pattern": SHARE}]
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lq job file",
        "description": "MLX-LM's LoRA YAML, key for key, and the keys of lq under 'lq'.",
    }
    return head | {key: value for key, value in schema.items() if key not in head}
