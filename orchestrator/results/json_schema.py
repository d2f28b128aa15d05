"""JSON Schema of a dataclass or a TypedDict, made by pydantic: no other fields, and a description for each field."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema
from typing_extensions import get_original_bases

from jobs.model import events
from orchestrator.results.files import EventFields

DESCRIPTIONS = {
    "attempt": "number of the attempt, from 1",
    "because": "reason, one line of text",
    "bytes": "size",
    "code": "code of the event or finding",
    "delivered": "the service accepted the message",
    "detail": "one line of text",
    "ended_at": "unix seconds; null until it has ended",
    "exit_code": "exit code of the process; null if a signal ended it or the exit was not observed",
    "free_bytes": "free disk space",
    "grad_checkpoint": "recompute activations in the backward pass",
    "id": "id of the job",
    "iteration": "completed iterations",
    "job_id": "id of the job",
    "kind": "kind of the entry",
    "loss": "nats per token; per row for preferences",
    "model": "folder, or name on the Hugging Face hub",
    "name": "name",
    "pid": "process id",
    "prompt": "prompt from the job file",
    "rows": "number of rows",
    "schema": "version of the format",
    "seconds": "duration in seconds",
    "sha256": "SHA-256 of the file, in hex",
    "signal": "signal that ended the process; null if none did",
    "size_bytes": "size of its files",
    "started_at": "unix seconds",
    "submitted_at": "unix seconds",
    "text": "one line of text",
    "time": "unix seconds",
    "v": "version of the line",
    "version": "version of the format",
}
"""Descriptions of fields that mean the same in every type. The comment after a field takes precedence."""

DRAFT = "https://json-schema.org/draft/2020-12/schema"
NUMBER = {
    "description": "a number, or a string if it is not finite",
    "anyOf": [{"type": "number"}, {"enum": ["nan", "inf", "-inf"]}],
}

_FIELD = re.compile(r"^ {4}(\w+)(?:: | = )[^#\n]*?(?:#[^#\n]*)?  # (.+(?:\n {4,}# .+)*)$", re.MULTILINE)

_JSON_WORDS = {"None": "null", "True": "true", "False": "false"}
_PYTHON_WORD = re.compile("|".join(rf"\b{word}\b" for word in _JSON_WORDS))


class _Closed(GenerateJsonSchema):
    """Objects that have exactly the given fields."""

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        """Describe what `dataclasses.asdict` returns: every field is present, also one with a default."""
        made, cls = super().dataclass_schema(schema), schema["cls"]
        for field in made["properties"].values():
            field.pop("default", None)
        described = _described(made | {"required": list(made["properties"])}, cls)
        return _as_event(described, cls) if cls.__module__ == events.__name__ else described

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> JsonSchemaValue:
        """Describe a dict in which only the fields marked NotRequired may be missing."""
        cls = schema.get("cls")
        assert cls is not None
        return _described(super().typed_dict_schema(schema), cls)

    def enum_schema(self, schema: core_schema.EnumSchema) -> JsonSchemaValue:
        """Describe an enumeration by the first line of its docstring."""
        doc = inspect.getdoc(schema["cls"]) or ""
        return super().enum_schema(schema) | {"description": doc.partition("\n")[0]}


def schema_of(model: Any, *, title: str, version: Mapping[str, int], under: str | None = None) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a type, or of an object that has it as its field `under`.

    `version`: the version field, unless the type has it.
    """
    made = TypeAdapter(model).json_schema(schema_generator=_Closed)
    if under is not None:
        defs = made.pop("$defs", {}) | {under: made}
        fields = {under: {"$ref": f"#/$defs/{under}"}}
        made = {"type": "object", "properties": fields, "required": [under], "additionalProperties": False}
        made["$defs"] = defs
    for name, number in version.items():
        made["properties"] = {name: {"const": number, "description": DESCRIPTIONS[name]}} | made["properties"]
        made["required"] = [name, *made["required"]]
    whole = _with_numbers(made)
    whole["$defs"] = {"Number": NUMBER} | whole.get("$defs", {})
    return {"$schema": DRAFT, "title": title} | {key: value for key, value in whole.items() if key != "title"}


def _described(made: JsonSchemaValue, cls: type) -> JsonSchemaValue:
    """Forbid other fields, and add the description of the class and of each field."""
    comments = _comments(cls)
    fields = {}
    for name, field in made["properties"].items():
        plain = {key: value for key, value in field.items() if key not in ("title", "format")}
        text = comments.get(name)
        if text is None and "$ref" not in json.dumps(plain):  # a referenced type has its own description
            assert name in DESCRIPTIONS, f"{cls.__name__}.{name} has no description; add a comment after the field"
            text = DESCRIPTIONS[name]
        fields[name] = plain | ({} if text is None else {"description": text})
    doc = {"description": inspect.cleandoc(cls.__doc__)} if cls.__doc__ else {}
    return made | doc | {"properties": fields, "additionalProperties": False}


def _as_event(made: JsonSchemaValue, cls: type) -> JsonSchemaValue:
    """Describe the fields of an event as `EventValue.to_data` writes them, and add the fields of every line.

    A field with a default can be missing. It is never null unless it is nullable.
    """
    properties = dict(made["properties"])
    optional = {field.name: field for field in dataclasses.fields(cls) if field.default is not dataclasses.MISSING}
    for name, field in optional.items():
        if field.default is None and not field.metadata:
            properties[name] = _without_null(properties[name])
    if issubclass(cls, events.EventValue):
        line = TypeAdapter(EventFields).json_schema(schema_generator=_Closed)["properties"]
        properties = line | {"kind": {"const": cls.kind.value, "description": DESCRIPTIONS["kind"]}} | properties
    return made | {"properties": properties, "required": [name for name in properties if name not in optional]}


def _without_null(schema: JsonSchemaValue) -> JsonSchemaValue:
    forms = [form for form in schema.get("anyOf", ()) if form != {"type": "null"}]
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return rest | (forms[0] if len(forms) == 1 else {"anyOf": forms} if forms else {})


@functools.cache
def comments_of(described: type) -> Mapping[str, str]:
    """Return the comments in the source of a class, by field. A comment may continue on the next lines."""
    source = inspect.cleandoc("\n" + inspect.getsource(described))
    return {name: re.sub(r"\s*\n\s*# ", " ", text) for name, text in _FIELD.findall(source)}


def _comments(cls: type) -> Mapping[str, str]:
    """Return the comments of a class and its bases."""
    comments: dict[str, str] = {}
    for base in get_original_bases(cls):
        if isinstance(base, type) and "__annotations__" in vars(base):
            comments |= _comments(base)
    own = comments_of(cls).items()
    return comments | {name: _PYTHON_WORD.sub(lambda word: _JSON_WORDS[word[0]], text) for name, text in own}


def _with_numbers(schema: Any) -> Any:
    """Allow a string in place of each float that is not finite (`jobs.model.events.finite`)."""
    if isinstance(schema, Mapping):
        if schema.get("type") == "number":
            rest = {key: value for key, value in schema.items() if key != "type"}
            return rest | {"$ref": "#/$defs/Number"}
        return {key: _with_numbers(value) for key, value in schema.items()}
    return [_with_numbers(value) for value in schema] if isinstance(schema, list) else schema
