"""From a type to its JSON Schema: pydantic's, closed, with a description on every field and lq's way with numbers."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema
from typing_extensions import get_original_bases

from orchestrator.results.comments import comments_of
from orchestrator.results.glossary import GLOSSARY

DRAFT = "https://json-schema.org/draft/2020-12/schema"
NUMBER = {
    "description": "a number; one that is not finite is a string",
    "anyOf": [{"type": "number"}, {"enum": ["nan", "inf", "-inf"]}],
}

_WORDS = {"None": "null", "True": "true", "False": "false"}
_JSON = re.compile("|".join(rf"\b{word}\b" for word in _WORDS))
"""What comments call by the names of Python."""


class _Closed(GenerateJsonSchema):
    """Objects with these fields, all of them, and no others."""

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        """Describe what dataclasses.asdict returns: every field is there, whatever its default."""
        found = super().dataclass_schema(schema)
        for field in found["properties"].values():
            field.pop("default", None)
        return _described(found | {"required": list(found["properties"])}, schema["cls"])

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> JsonSchemaValue:
        """Describe a dict whose fields are there, but for those that are NotRequired."""
        cls = schema.get("cls")
        assert cls is not None
        return _described(super().typed_dict_schema(schema), cls)

    def enum_schema(self, schema: core_schema.EnumSchema) -> JsonSchemaValue:
        """Describe a closed list of words, in the first line of what its source says."""
        about = inspect.getdoc(schema["cls"]) or ""
        return super().enum_schema(schema) | {"description": about.partition("\n")[0]}


def schema_of(form: Any, *, title: str, headed: bool = False) -> dict[str, Any]:
    """Return the schema (draft 2020-12) of a type.

    Args:
        form: of dataclasses, TypedDicts and plain types.
        title: what it is of.
        headed: a number `schema` stands before its fields.
    """
    made = TypeAdapter(form).json_schema(schema_generator=_Closed)
    if headed:
        made["properties"] = {"schema": {"const": 1, "description": GLOSSARY["schema"]}} | made["properties"]
        made["required"] = ["schema", *made["required"]]
    whole = _numbers(made)
    whole["$defs"] = {"Number": NUMBER} | whole.get("$defs", {})
    return {"$schema": DRAFT, "title": title} | {name: value for name, value in whole.items() if name != "title"}


def _described(found: JsonSchemaValue, cls: type) -> JsonSchemaValue:
    """Close an object, and say of every field what it is."""
    said = _comments(cls)
    fields = {}
    for name, field in found["properties"].items():
        named = {key: value for key, value in field.items() if key != "title"}
        words = said.get(name) or GLOSSARY.get(f"{cls.__name__}.{name}")
        if words is None and "$ref" not in json.dumps(named):  # what is referred to says itself what it is
            assert name in GLOSSARY, f"{cls.__name__}.{name}: no comment says what it is"
            words = GLOSSARY[name]
        fields[name] = named | ({} if words is None else {"description": words})
    about = {"description": inspect.cleandoc(cls.__doc__)} if cls.__doc__ else {}
    return found | about | {"properties": fields, "additionalProperties": False}


def _comments(cls: type) -> Mapping[str, str]:
    """Return the comments of a class and of what it was made from."""
    said: dict[str, str] = {}
    for base in get_original_bases(cls):
        if isinstance(base, type) and "__annotations__" in vars(base):
            said |= _comments(base)
    return said | {name: _JSON.sub(lambda word: _WORDS[word[0]], text) for name, text in comments_of(cls).items()}


def _numbers(schema: Any) -> Any:
    """Let every floating-point number be a string too, where it is not finite (jobs/model/events.py, `finite`)."""
    if isinstance(schema, Mapping):
        if schema.get("type") == "number":
            rest = {name: value for name, value in schema.items() if name != "type"}
            return rest | {"$ref": "#/$defs/Number"}
        return {name: _numbers(value) for name, value in schema.items()}
    return [_numbers(one) for one in schema] if isinstance(schema, list) else schema
