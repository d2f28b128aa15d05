"""Job files: read with every check that needs no model in memory, and written back as the effective configuration.

Start reading at `load_job`. Nothing here writes a file or asks the network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs import strict, yaml_text
from configs.faults import first_of, invalid
from configs.places import place
from configs.training_rules import training_faults
from configs.yaml_text import Document
from jobs.spec import JobSpec, LqSpec

_LONGEST_NAME = 80  # characters, as jobs/spec.py has it


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedJob:
    """A job file, read."""

    spec: JobSpec  # every path absolute, lq.name filled in
    notes: tuple[str, ...]  # one line each: what the user should be told
    source: Path  # absolute


def load_job(path: Path, *, defaults: LqSpec | None = None) -> LoadedJob:
    """Read a job file, MLX-LM's LoRA YAML plus `lq:`.

    Args:
        path: the file; relative paths in it start from its folder.
        defaults: `defaults` of settings.yaml; the file's own `lq:` wins, key by key.

    Raises:
        ConfigInvalid: the file says something lq cannot follow.
        ModelMissing: the model is named by a path and cannot be loaded from there.
    """
    document = yaml_text.require_document(Path.cwd() / path)
    spec = _checked(document, defaults=defaults)
    faults = training_faults(document, spec)
    if faults:
        raise first_of(document.source, faults)
    placed = place(document, spec, current=Path.cwd())
    _require_text_paths(document, placed.spec)
    named = _named(placed.spec, document.source)
    return LoadedJob(spec=named, notes=(*placed.notes, *_notes(spec)), source=document.source)


def load_frozen(path: Path) -> JobSpec:
    """Read the effective configuration that `dump_job` wrote.

    Raises:
        ConfigInvalid: it was changed by hand into something else, or a newer lq wrote it.
    """
    return _checked(yaml_text.require_document(path), keep_nulls=True)


def dump_job(spec: JobSpec) -> str:
    """Return the effective configuration as YAML: every default filled in, MLX-LM's order, `lq:` last."""
    return yaml_text.dump(spec.model_dump(mode="json"))


def _checked(document: Document, *, defaults: LqSpec | None = None, keep_nulls: bool = False) -> JobSpec:
    own = document.value.get("lq")
    strict.require_format(document, own.get("format") if isinstance(own, dict) else None)
    tidied = strict.tidy(document, JobSpec, keep_nulls=keep_nulls)
    value = tidied.value if defaults is None else _with_defaults(tidied.value, defaults)
    spec, faults = strict.check(document, JobSpec, value)
    faults = [*tidied.faults, *faults]
    if spec is None or faults:
        raise first_of(document.source, faults)
    return spec


def _with_defaults(value: dict[str, Any], defaults: LqSpec) -> dict[str, Any]:
    own = value.get("lq", {})
    if not isinstance(own, dict):
        return value
    return value | {"lq": _merged(defaults.model_dump(mode="json", exclude_unset=True), own)}


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `under` with the keys of `over` laid on it, mapping by mapping."""
    merged = {**under, **over}
    for key in under.keys() & over.keys():
        if isinstance(under[key], dict) and isinstance(over[key], dict):
            merged[key] = _merged(under[key], over[key])
    return merged


def _named(spec: JobSpec, source: Path) -> JobSpec:
    if spec.lq.name is not None:
        return spec
    printable = "".join(char for char in source.stem if char.isprintable()).strip()
    lq = spec.lq.model_copy(update={"name": printable[:_LONGEST_NAME].strip() or "job"})
    return spec.model_copy(update={"lq": lq})


def _notes(spec: JobSpec) -> list[str]:
    notes = []
    if spec.trust_remote_code:
        notes.append("trust_remote_code is on: code that comes with the model will run")
    if spec.config is not None:
        notes.append("config: is MLX-LM's own -c and is not read")
    return notes


def _require_text_paths(document: Document, spec: JobSpec) -> None:
    """A folder whose name is no UTF-8 cannot be written into a YAML file."""
    paths = (spec.model, spec.data, spec.resume_adapter_file, spec.adapter_path, document.source.stem)
    try:
        for path in paths:
            (path or "").encode()
    except UnicodeEncodeError as error:
        text = "the name of its folder, or of one it names, is not UTF-8; rename that folder"
        raise invalid(document.source, None, text) from error
