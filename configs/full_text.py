"""A job as a person edits it: what was asked for in plain sight, and every default beside it as a comment."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from configs import yaml_text
from jobs.model.spec import FrozenModel, JobSpec


def full_text(spec: JobSpec) -> str:
    """Return a job file that makes this very job; what is a default stands there as a comment.

    `settings.yaml` has no part in it: what its defaults said when the job was submitted is spelled out.
    """
    return "\n".join([*_lines(spec, besides="lq"), "lq:", *(f"  {line}" for line in _lines(spec.lq)), ""])


def _lines(value: FrozenModel, *, besides: str | None = None) -> Iterator[str]:
    told = value.model_dump(mode="json")
    for key, field in type(value).model_fields.items():
        if key == besides:
            continue
        default = not field.is_required() and getattr(value, key) == field.get_default(call_default_factory=True)
        text = yaml_text.dump({key: told[key]}).rstrip("\n")
        yield from (textwrap.indent(text, "# ") if default else text).splitlines()
