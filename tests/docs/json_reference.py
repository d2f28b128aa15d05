"""docs/reference/json.md: a table of every field with its type and meaning, from the JSON Schemas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.results.catalogue import CATALOGUE, schema

PAGE = "docs/reference/json.md"
HEAD = """\
<!-- made by `make docs` from orchestrator/results/ -->
# JSON output

Commands with `--json` print one JSON object; `lq logs ID --json` and `lq run FILE --json` print one event per line.
`lq config schema --of NAME` prints the JSON Schema (draft 2020-12) of each object on this page,
`lq config schema --list` the names, and `lq config schema` alone the schema of a job file.

- Within one `schema` number lq only adds fields. A removed field, or one with another meaning, raises the number.
- *number*: a number that is not finite is the string `"nan"`, `"inf"` or `"-inf"`, because JSON has no such numbers.
- Times are in unix seconds, losses in nats per token, sizes in bytes.
- *or null*: the value is unknown or not applicable. *optional*: the field can be missing.
- `a.b` is the field `b` of the object `a`, `a[].b` the field `b` of every object in the list `a`, and `a.*` every value
  of an object whose keys are names.
- An error is one line on stderr, with an [exit code](exit-codes.md). The results of a failed check are printed as well.
"""

Schema = Mapping[str, Any]

_PLURAL = {"object": "objects", "string": "strings", "integer": "integers", "number": "numbers"}


def page() -> str:
    """Return the text of the page."""
    return HEAD + "".join(_section(names) for names in _names_by_form())


def _names_by_form() -> list[list[str]]:
    """Return the schema names; names with the same form are in one list."""
    by_form: dict[str, list[str]] = {}
    for name, entry in CATALOGUE.items():
        by_form.setdefault(entry.model, []).append(name)
    return list(by_form.values())


def _section(names: list[str]) -> str:
    root = schema(names[0])
    title = "; ".join(dict.fromkeys(CATALOGUE[name].of for name in names))
    schema_commands = ", ".join(f"`lq config schema --of {name}`" for name in names)
    description = [root["description"], ""] if "description" in root else []
    lines = [f"\n## {title}\n", *description, f"Schema: {schema_commands}", ""]
    if "anyOf" in root:
        for alternative in root["anyOf"]:
            form = _resolved(root, alternative)
            lines += [f"### {_kind(form)}\n", form["description"], "", *_table(root, form), ""]
    else:
        lines += [*_table(root, root), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _kind(form: Schema) -> str:
    """Return the title of one kind of event line, such as `` `fact`: answer ``."""
    fields = form["properties"]
    name = fields.get("name", {})
    qualifier = name.get("const") or name.get("pattern") or " or ".join(name.get("enum", ()))
    kind: str = fields["kind"]["const"]
    return f"`{kind}`: {qualifier}" if qualifier else f"`{kind}`"


def _table(root: Schema, form: Schema) -> list[str]:
    rows = [f"| `{path}` | {type_name} | {meaning} |" for path, type_name, meaning in _rows(root, form, "")]
    return ["| field | type | meaning |", "|---|---|---|", *rows]


def _rows(root: Schema, form: Schema, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Yield path, type and meaning of every field, followed by the fields inside it."""
    required = form.get("required", ())
    for name, field in form["properties"].items():
        inner, type_name, step = _unwrapped(root, field)
        meaning = field.get("description") or _as_phrase(inner.get("description", ""))
        path = f"{prefix}{name}"
        yield path, type_name + ("" if name in required else ", optional"), _cell(meaning)
        if "properties" in inner:
            yield from _rows(root, inner, f"{path}{step}.")


def _unwrapped(root: Schema, field: Schema) -> tuple[Schema, str, str]:
    """Return the innermost schema of a field, the name of its type, and the path step into it (`[]`, `.*`)."""
    form = _resolved(root, field)
    if "anyOf" in form and not _is_number(form):
        return _unwrapped_union(root, form["anyOf"])
    if form.get("type") == "array" and "prefixItems" in form:
        type_names = [_unwrapped(root, item)[1] for item in form["prefixItems"]]
        return {}, f"[{', '.join(type_names)}]", "[]"
    if form.get("type") == "array":
        inner, type_name, step = _unwrapped(root, form["items"])
        return inner, f"list of {_PLURAL.get(type_name, type_name)}", f"[]{step}"
    values = form.get("additionalProperties")
    if form.get("type") == "object" and "properties" not in form and isinstance(values, Mapping):
        inner, type_name, step = _unwrapped(root, values)
        return inner, f"object of {_PLURAL.get(type_name, type_name)}", f".*{step}"
    return form, _type_name(form), ""


def _unwrapped_union(root: Schema, alternatives: Sequence[Schema]) -> tuple[Schema, str, str]:
    forms = [form for form in alternatives if form.get("type") != "null"]
    inner, type_name, step = _unwrapped(root, forms[0])
    others = [_unwrapped(root, form)[1] for form in forms[1:]]
    null = ["null"] if len(forms) < len(alternatives) else []
    return inner, " or ".join([type_name, *others, *null]), step


def _type_name(form: Schema) -> str:
    if "const" in form:
        return f"`{form['const']}`"
    if "enum" in form:
        return " or ".join(f"`{value}`" for value in form["enum"])
    return "number" if _is_number(form) else str(form.get("type", "any"))


def _is_number(form: Schema) -> bool:
    return {"type": "number"} in form.get("anyOf", ())


def _resolved(root: Schema, form: Schema) -> Schema:
    """Return the schema that a reference points to; the keys next to the reference have priority."""
    if "$ref" not in form:
        return form
    target: Schema = root["$defs"][form["$ref"].rpartition("/")[2]]
    return {**_resolved(root, target), **{name: value for name, value in form.items() if name != "$ref"}}


def _as_phrase(sentence: str) -> str:
    """Return the first line of a class docstring as the meaning of a field."""
    first = sentence.partition("\n")[0].rstrip(".")
    return first[:1].lower() + first[1:]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
