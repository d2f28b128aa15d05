"""docs/reference/json.md, from the schemas: for each a table of every field with its type and what it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.schemas.catalogue import CATALOGUE, schema

PAGE = "docs/reference/json.md"
HEAD = """\
<!-- made by `make docs` from orchestrator/schemas/ -->
# JSON output

Commands with `--json` print one JSON object; `lq logs ID --json` and `lq run FILE --json` print one event per line.
`lq config schema --of NAME` prints the JSON Schema (draft 2020-12) of each object on this page, `lq config schema --list` the
names, and `lq config schema` alone the schema of a job file.

- Within one `schema` number lq only adds fields. A removed field, or one with another meaning, raises the number.
- *number*: a number that is not finite is the string `"nan"`, `"inf"` or `"-inf"`, because JSON has no such numbers.
- Times are in unix seconds, losses in nats per token, sizes in bytes.
- *or null*: the value is unknown or not applicable. *optional*: the field can be missing.
- `a.b` is the field `b` of the object `a`, `a[].b` the field `b` of every object in the list `a`, and `a.*` every value of an object
  whose keys are names.
- An error is one line on stderr, with an [exit code](exit-codes.md). The results of a failed check are printed as well.
"""

Schema = Mapping[str, Any]


def page() -> str:
    """Return the page."""
    return HEAD + "".join(_section(names) for names in _alike())


def _alike() -> list[list[str]]:
    """Return the names, those of one form together."""
    found: dict[str, list[str]] = {}
    for name, entry in CATALOGUE.items():
        found.setdefault(entry.form, []).append(name)
    return list(found.values())


def _section(names: list[str]) -> str:
    made = schema(names[0])
    of = "; ".join(dict.fromkeys(CATALOGUE[name].of for name in names))
    typed = ", ".join(f"`lq config schema --of {name}`" for name in names)
    lines = [f"\n## {of}\n", *([made["description"], ""] if "description" in made else []), f"Schema: {typed}", ""]
    if "anyOf" in made:
        for one in made["anyOf"]:
            form = _followed(made, one)
            lines += [f"### {_kind(form)}\n", form["description"], "", *_table(made, form), ""]
    else:
        lines += [*_table(made, made), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _kind(form: Schema) -> str:
    """Return the words that tell this line from the others."""
    fields = form["properties"]
    name = fields.get("name", {})
    of = name.get("const") or name.get("pattern") or " or ".join(name.get("enum", ()))
    kind: str = fields["kind"]["const"]
    return f"`{kind}`: {of}" if of else f"`{kind}`"


def _table(whole: Schema, form: Schema) -> list[str]:
    rows = [f"| `{path}` | {kind} | {said} |" for path, kind, said in _rows(whole, form, "")]
    return ["| field | type | what it is |", "|---|---|---|", *rows]


def _rows(whole: Schema, form: Schema, before: str) -> Iterator[tuple[str, str, str]]:
    """Yield path, type and meaning of every field, and of those inside it."""
    needed = form.get("required", ())
    for name, field in form["properties"].items():
        inner, kind, step = _unfolded(whole, field)
        said = field.get("description") or _as_phrase(inner.get("description", ""))
        path = f"{before}{name}"
        yield path, kind + ("" if name in needed else ", optional"), _cell(said)
        if "properties" in inner:
            yield from _rows(whole, inner, f"{path}{step}.")


def _unfolded(whole: Schema, field: Schema) -> tuple[Schema, str, str]:
    """Return the form of a field without what is around it, the words for its type, and how one steps into it."""
    found = _followed(whole, field)
    if "anyOf" in found and not _is_number(found):
        forms = [one for one in found["anyOf"] if one.get("type") != "null"]
        inner, kind, step = _unfolded(whole, forms[0])
        others = [_unfolded(whole, one)[1] for one in forms[1:]]
        null = ["null"] if len(forms) < len(found["anyOf"]) else []
        return inner, " or ".join([kind, *others, *null]), step
    if found.get("type") == "array" and "prefixItems" in found:
        kinds = [_unfolded(whole, one)[1] for one in found["prefixItems"]]
        return {}, f"[{', '.join(kinds)}]", "[]"
    if found.get("type") == "array":
        inner, kind, step = _unfolded(whole, found["items"])
        return inner, f"list of {_PLURAL.get(kind, kind)}", f"[]{step}"
    values = found.get("additionalProperties")
    if found.get("type") == "object" and "properties" not in found and isinstance(values, Mapping):
        inner, kind, step = _unfolded(whole, values)
        return inner, f"object of {_PLURAL.get(kind, kind)}", f".*{step}"
    return found, _plain(found), ""


_PLURAL = {"object": "objects", "string": "strings", "integer": "integers", "number": "numbers"}


def _plain(form: Schema) -> str:
    if "const" in form:
        return f"`{form['const']}`"
    if "enum" in form:
        return " or ".join(f"`{one}`" for one in form["enum"])
    return "number" if _is_number(form) else str(form.get("type", "any"))


def _is_number(form: Schema) -> bool:
    return {"type": "number"} in form.get("anyOf", ())


def _followed(whole: Schema, form: Schema) -> Schema:
    """Return what a form refers to; what is said beside the reference goes first."""
    if "$ref" not in form:
        return form
    found: Schema = whole["$defs"][form["$ref"].rpartition("/")[2]]
    return {**_followed(whole, found), **{name: value for name, value in form.items() if name != "$ref"}}


def _as_phrase(sentence: str) -> str:
    """Return what a class says of itself, as one says it beside a field."""
    first = sentence.partition("\n")[0].rstrip(".")
    return first[:1].lower() + first[1:]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
