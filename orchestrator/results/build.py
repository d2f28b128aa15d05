"""Builds a result from the object that it describes."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

T = TypeVar("T")


def from_attributes(model: type[T], source: object, **others: Any) -> T:
    """Build a result. A field that is not given has the value of the attribute of the same name."""
    names = (field.name for field in fields(model) if field.name not in others)  # type: ignore[arg-type]
    return model(**{name: getattr(source, name) for name in names}, **others)
