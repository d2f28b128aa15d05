"""Job files: read with every check that needs no model in memory, and written back as the effective configuration.

Start reading at `load_jobs`. Nothing here writes a file or asks the network.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs import validation, yaml_text
from configs.errors import dotted, first_of, invalid
from configs.labels import LONGEST_NAME, named
from configs.matrix import Combination, combinations, overlap, without_matrix
from configs.overrides import IN_MATRIX, Setting, lay, parse_set
from configs.paths import place
from configs.training_rules import training_faults
from configs.yaml_text import Document
from jobs.model.errors import Line
from jobs.model.spec import JobSpec, LqSpec

STDIN = Path("-")
"""In the place of a file: what comes on standard input."""

_STDIN = "stdin"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Sweep:
    """A file whose matrix makes several jobs; each reading of one is a sweep of its own."""

    name: str  # the file's, or its lq.name
    joins: str | None  # lq.group: the group its jobs join, whoever else is in it
    jobs: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobText:
    """A job file that lies nowhere; relative paths in it start from the current folder."""

    name: str  # what it is called in errors
    content: bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedJob:
    """A job file, read."""

    spec: JobSpec  # every path absolute, lq.name filled in
    notes: tuple[str, ...]  # one line each: what the user should be told
    source: Path  # absolute; a bare name where it is no file
    content: bytes  # of the file
    data_line: Line | None = None  # of the file, where it names its data
    sweep: Sweep | None = None  # it is one of; None for a file without a matrix
    label: str | None = None  # what tells it from the others of its sweep
    varied: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # what the matrix sets, by dotted key
    sets: tuple[str, ...] = ()  # what was laid upon the file, as key=value


def load_jobs(path: Path | JobText, sets: Sequence[str] = (), *, defaults: LqSpec | None = None) -> list[LoadedJob]:
    """Read a job file, MLX-LM's LoRA YAML plus `lq:`; a matrix makes several jobs of it, each checked like a file.

    Args:
        path: the file; relative paths in it start from its folder. `-` is standard input.
        sets: `key=value` each, laid upon the file before anything is checked.
        defaults: `defaults` of settings.yaml; the file's own `lq:` wins, key by key.

    Raises:
        ConfigInvalid: the file, or one of the jobs it makes, says something lq cannot follow.
        ModelMissing: a model is named by a path and cannot be loaded from there.
        InvalidInput: something of `sets` is not of the form key=value.
    """
    given = [parse_set(text) for text in sets]
    source, content = _read(path)
    document = lay(yaml_text.require_document(source, content), given)
    found = combinations(document)
    base = without_matrix(document)
    if found is None:
        return [dataclasses.replace(_loaded(base, content, defaults), sets=tuple(sets))]
    _require_not_varied(document, given, found)
    jobs = [_loaded(lay(base, one.settings), content, defaults) for one in found]
    first = jobs[0].spec.lq
    sweep = Sweep(name=first.name or "job", joins=first.group, jobs=len(jobs))
    _require_different(document, jobs, found)
    return [_of_sweep(job, one, sweep, tuple(sets)) for job, one in zip(jobs, found, strict=True)]


def _read(path: Path | JobText) -> tuple[Path, bytes]:
    """Return what a job file is called in errors, and what it holds."""
    if isinstance(path, JobText):
        return Path(path.name), path.content
    if path == STDIN:
        return Path(f"<{_STDIN}>"), yaml_text.read_typed(Path(f"<{_STDIN}>"))
    return Path.cwd() / path, yaml_text.read(Path.cwd() / path)


def _of_sweep(job: LoadedJob, one: Combination, sweep: Sweep, sets: tuple[str, ...]) -> LoadedJob:
    """Give a job of a sweep its name, and a folder of its own to publish to."""
    own = {"name": named(sweep.name, one.label), "group": sweep.joins or sweep.name}
    changes: dict[str, Any] = {"lq": job.spec.lq.model_copy(update=own)}
    if job.spec.adapter_path is not None and "adapter_path" not in one.varied:
        changes["adapter_path"] = str(Path(job.spec.adapter_path) / one.folder)
    return dataclasses.replace(
        job, spec=job.spec.model_copy(update=changes), sweep=sweep, label=one.label, varied=one.varied, sets=sets
    )


def _require_not_varied(document: Document, given: Sequence[Setting], found: Sequence[Combination]) -> None:
    """Refuse a `--set` that the matrix would undo in every job."""
    varied = {setting.where for one in found for setting in one.settings}
    for setting in given:
        if setting.where[: len(IN_MATRIX)] == IN_MATRIX[: len(setting.where)]:
            continue
        if any(overlap(setting.where, where) for where in varied):
            key = dotted(setting.where)
            text = f"the matrix varies it; set its values with --set 'lq.matrix.{key}=[...]'"
            raise invalid(document.source, setting.lines[setting.where], text)


def _require_different(document: Document, jobs: Sequence[LoadedJob], found: Sequence[Combination]) -> None:
    """Refuse a sweep two of whose jobs would train the very same run."""
    seen: dict[str, str] = {}
    for job, one in zip(jobs, found, strict=True):
        spec = job.spec
        if spec.lr_schedule is not None:
            spec = spec.model_copy(update={"learning_rate": 0.0})  # not used
        other = seen.setdefault(spec.model_dump_json(), one.label)
        if other != one.label:
            unused = "; learning_rate is not used where lr_schedule is given" if spec is not job.spec else ""
            text = f"{dotted(IN_MATRIX)}: '{other}' and '{one.label}' are the same run{unused}"
            raise invalid(document.source, document.line(IN_MATRIX), text)


def _loaded(document: Document, content: bytes, defaults: LqSpec | None) -> LoadedJob:
    """Check what one job's file says."""
    spec = _checked(document, defaults=defaults)
    faults = training_faults(document, spec)
    if faults:
        raise first_of(document.source, faults)
    placed = place(document, spec, current=Path.cwd())
    _require_text_paths(document, placed.spec)
    named = _named(placed.spec, document.source)
    notes, line = (*placed.notes, *_notes(spec)), document.line(("data",))
    return LoadedJob(spec=named, notes=notes, source=document.source, content=content, data_line=line)


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
    validation.require_format(document, own.get("format") if isinstance(own, dict) else None)
    tidied = validation.tidy(document, JobSpec, keep_nulls=keep_nulls)
    value = tidied.value if defaults is None else _with_defaults(tidied.value, defaults)
    spec, faults = validation.check(document, JobSpec, value)
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
    stem = _STDIN if source.name == f"<{_STDIN}>" else source.stem
    printable = "".join(char for char in stem if char.isprintable()).strip()
    lq = spec.lq.model_copy(update={"name": printable[:LONGEST_NAME].strip() or "job"})
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
