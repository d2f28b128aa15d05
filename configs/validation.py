"""From a Document to a checked model: nothing is guessed, nothing is passed over, every mistake has its line.

Reads no file and knows no key; the keys are those of the model it is given.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from configs.errors import Fault, Where, dotted, show
from configs.expectations import expected, model_of
from configs.suggestions import Levels, is_not_built, unknown_key
from configs.yaml_text import Document
from jobs.model.errors import ConfigInvalid, located

Model = TypeVar("Model", bound=BaseModel)

_OWN_WORDS = {
    ("train",): "must be true, lq queues training; to measure only, use mlx_lm.lora --test",
}


def _show_all(where: Where, value: object) -> bool:
    return True


def require_format(document: Document, given: object) -> None:
    """Refuse a file that a newer lq wrote before anything else in it is judged.

    Raises:
        ConfigInvalid: its format is a later one.
    """
    if isinstance(given, int) and given > 1:
        text = f"has format {given}, this lq reads format 1: update lq"
        raise ConfigInvalid(located(document.source, None, text))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tidied:
    """What a file says, with the keys that are not known left out and reported."""

    value: dict[str, Any]
    faults: list[Fault]


def tidy(document: Document, model: type[BaseModel], *, keep_nulls: bool = False) -> Tidied:
    """Leave out what is not known (a fault each) and what is null (it means the default, as in MLX-LM).

    Args:
        document: the file.
        model: its keys.
        keep_nulls: keep nulls in mappings whose keys are free; a file written by lq means them.
    """
    tidying = _Tidying(document, model, keep_nulls=keep_nulls)
    return Tidied(value=tidying.mapping(document.value, model, ()), faults=tidying.faults)


class _Tidying:
    def __init__(self, document: Document, model: type[BaseModel], *, keep_nulls: bool) -> None:
        self.faults: list[Fault] = []
        self._document = document
        self._levels = levels(model)
        self._keep_nulls = keep_nulls

    def mapping(self, given: dict[str, Any], model: type[BaseModel], where: Where) -> dict[str, Any]:
        kept = {}
        for key, value in given.items():
            place = (*where, key)
            if key not in model.model_fields:
                self._unknown(place, value)
            elif value is not None:
                kept[key] = self._value(value, model.model_fields[key].annotation, place)
        return kept

    def _value(self, value: Any, annotation: Any, where: Where) -> Any:
        model = model_of(annotation)
        if model is not None and isinstance(value, dict):
            return self.mapping(value, model, where)
        if model is not None and isinstance(value, list):
            return [self._value(item, model, (*where, place)) for place, item in enumerate(value)]
        if isinstance(value, float) and value.is_integer():
            return int(value)  # `iters: 1e3`
        return value if self._keep_nulls else _without_nulls(value)

    def _unknown(self, where: Where, value: object) -> None:
        if value is None and is_not_built(where):
            return
        text = unknown_key(where, value, top=self._document.value, levels=self._levels)
        self.faults.append(Fault(where=where, line=self._document.line(where), text=text))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def levels(model: type[BaseModel], under: str = "") -> Levels:
    """Return the valid keys of a file by the dotted key they stand under."""
    found = {under: tuple(model.model_fields)}
    for key, field in model.model_fields.items():
        inner = model_of(field.annotation)
        if inner is not None:
            found |= levels(inner, f"{under}.{key}" if under else key)
    return found


def check(
    document: Document,
    model: type[Model],
    value: dict[str, Any],
    *,
    may_show: Callable[[Where, object], bool] = _show_all,
) -> tuple[Model | None, list[Fault]]:
    """Check types and ranges.

    Args:
        document: for the lines.
        model: what the values are read into.
        value: a tidied value.
        may_show: says which values a message may quote.

    Returns:
        The model, or None and at least one fault.
    """
    try:
        # as JSON, since pydantic's strictness otherwise wants tuples that no file has
        return model.model_validate_json(json.dumps(value), strict=True), []
    except ValidationError as error:
        details = error.errors(include_url=False)
    faults: dict[Where, Fault] = {}
    for detail in details:
        where = _place(document, detail["loc"])
        text = _text(model, where, detail, may_show)
        faults.setdefault(where, Fault(where=where, line=document.line(where), text=text))
    return None, list(faults.values())


def _place(document: Document, loc: tuple[int | str, ...]) -> Where:
    """Pydantic names members of unions on the way; the file does not have them."""
    where: Where = ()
    for part in loc:
        if (*where, part) in document.lines:
            where = (*where, part)
    return where


def _text(model: type[BaseModel], where: Where, detail: ErrorDetails, may_show: Callable[[Where, object], bool]) -> str:
    if detail["type"] == "missing":
        return f"{dotted(where)}: '{detail['loc'][-1]}' is missing"
    if where in _OWN_WORDS:
        return f"{dotted(where)}: {_OWN_WORDS[where]}"
    if detail["type"] == "value_error":
        what = str(detail["ctx"]["error"])
    else:
        what = expected(model, where) or "something else"
    value = detail["input"]
    return f"{dotted(where)}: must be {what}" + (f", not {show(value)}" if may_show(where, value) else "")
