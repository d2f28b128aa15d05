"""The text of a job for `lq edit`: a job file in which every default is a comment."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from configs import yaml_text
from jobs.model.base import FrozenModel
from jobs.model.spec import JobSpec


def full_text(spec: JobSpec) -> str:
    """Return a job file that makes this job; keys with their default value are comments.

    The file does not depend on `settings.yaml`: it contains the defaults that applied when the job was submitted.
    """
    return "\n".join([*_lines(spec, without="lq"), "lq:", *(f"  {line}" for line in _lines(spec.lq)), ""])


def _lines(model: FrozenModel, *, without: str | None = None) -> Iterator[str]:
    values = model.model_dump(mode="json")
    for key, field in type(model).model_fields.items():
        if key == without:
            continue
        default = not field.is_required() and getattr(model, key) == field.get_default(call_default_factory=True)
        text = yaml_text.dump({key: values[key]}).rstrip("\n")
        yield from (textwrap.indent(text, "# ") if default else text).splitlines()
