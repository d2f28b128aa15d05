"""The JSON Schema of job files."""

from __future__ import annotations

import json
import re
from typing import Any

from configs.schema import job_schema
from jobs.model.objective import Cpo, Dpo, Kto, Orpo, Simpo, Supervised
from jobs.model.spec import (
    Checkpointing,
    EarlyStop,
    JobSpec,
    Keep,
    LoraParameters,
    LqSpec,
    LrSchedule,
    MemorySettings,
    Notify,
    Power,
    Retry,
    Spike,
    StallLimits,
)

PARTS = (Retry, MemorySettings, StallLimits, Checkpointing, Keep, Notify, Power, Spike, EarlyStop)
"""The sections of `lq:`."""


def objects(schema: Any) -> list[dict[str, Any]]:
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    nested = [item for value in inner for item in objects(value)]
    return [schema, *nested] if isinstance(schema, dict) and "properties" in schema else nested


def test_schema_has_every_key_of_the_spec() -> None:
    schema = job_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == "lq job file"
    assert list(schema["properties"]) == list(JobSpec.model_fields)
    matrix = schema["$defs"]["LqSpec"]["properties"].pop("matrix")  # a key of the file, not of a job
    assert list(matrix["properties"]) == ["exclude"]
    assert len(objects(schema)) == len(
        [JobSpec, LrSchedule, LoraParameters, LqSpec, *PARTS, Supervised, Dpo, Orpo, Simpo, Cpo, Kto]
    )
    assert all(level["additionalProperties"] is False for level in objects(schema))
    assert json.loads(json.dumps(schema)) == schema


def test_every_schema_key_is_described() -> None:
    for level in objects(job_schema()):
        for key, field in level["properties"].items():
            assert "description" in field or "$ref" in field, key


def test_schema_accepts_units_as_text() -> None:
    schema = job_schema()
    number, text = schema["$defs"]["Checkpointing"]["properties"]["every"]["anyOf"]
    assert number == {"exclusiveMinimum": 0, "type": "number"}
    assert re.search(text["pattern"], "10min")
    number, text = schema["properties"]["clear_cache_threshold"]["anyOf"]
    assert number == {"minimum": 0, "type": "integer"}
    assert re.search(text["pattern"], "512MB") and not re.search(text["pattern"], "big")
