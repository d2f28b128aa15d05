"""The text of a job for `lq edit`: a job file in which every default is a comment."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from configs import yaml_text
from jobs.model.spec import FrozenModel, JobSpec


def full_text(spec: JobSpec) -> str:
    """Return a job file that makes this job, whatever `settings.yaml` says; default values are comments."""
    return "\n".join([*_lines(spec, without="lq"), "lq:", *(f"  {line}" for line in _lines(spec.lq)), ""])


def _lines(model: FrozenModel, *, without: str | None = None) -> Iterator[str]:
    values = model.model_dump(mode="json")
    for key, field in type(model).model_fields.items():
        if key == without:
            continue
        default = not field.is_required() and getattr(model, key) == field.get_default(call_default_factory=True)
        text = yaml_text.dump({key: values[key]}).rstrip("\n")
        yield from (textwrap.indent(text, "# ") if default else text).splitlines()
