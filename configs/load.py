"""Job files: `load_jobs` reads and checks them, `dump_job` writes the effective configuration, `full_text` a file.

The checks need no model in memory and no network. This module writes no file.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from configs import validation, yaml_text
from configs.errors import KeyPath, Problem, all_problems, dotted, invalid
from configs.labels import MAX_NAME, job_name
from configs.matrix import Combination, combinations, overlap, without_matrix
from configs.overrides import IN_MATRIX, Override, apply_overrides, parse_override
from configs.paths import resolve_paths
from configs.run_length import with_length
from configs.suggestions import other_trainer
from configs.training_rules import training_problems
from configs.yaml_text import Document
from jobs.model.base import FrozenModel
from jobs.model.errors import Line
from jobs.model.spec import JobSpec, LqSpec

STDIN = Path("-")  # instead of a file: read standard input

_STDIN_NAME = "stdin"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Sweep:
    """A file whose matrix makes several jobs. Each read of a file makes a new sweep."""

    name: str  # lq.name, or the name of the file
    joins: str | None  # lq.group: the existing or new group that the jobs join
    jobs: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobText:
    """A job file that is not on disk. Relative paths in it start from the current folder."""

    name: str  # shown in errors
    content: bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedJob:
    """One job of a job file."""

    spec: JobSpec  # with absolute paths and a name
    notes: tuple[str, ...]  # one line each, for the user
    source: Path  # absolute; a bare name if there is no file
    content: bytes  # of the file
    data_line: Line | None = None  # the line that names the data
    line_of: Callable[[KeyPath], Line | None] = lambda _: None  # the line of a key, None if the file lacks it
    sweep: Sweep | None = None  # None for a file without a matrix
    label: str | None = None  # unique in the sweep
    varied: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # the values of the matrix, by dotted key
    sets: tuple[str, ...] = ()  # the `--set` arguments


def load_jobs(path: Path | JobText, sets: Sequence[str] = (), *, defaults: LqSpec | None = None) -> list[LoadedJob]:
    """Read and check a job file: MLX-LM's LoRA YAML plus `lq:`. A matrix makes several jobs.

    Args:
        path: relative paths in it start from its folder; `-` is standard input.
        sets: `key=value` each; they replace values of the file before any check.
        defaults: `defaults` of settings.yaml; keys of the file have priority.

    Raises:
        ConfigInvalid, ModelMissing: the file, or a job that it makes, is invalid.
        InvalidInput: an item of `sets` is not of the form key=value.
    """
    overrides = [parse_override(text) for text in sets]
    source, content = _read(path)
    document = apply_overrides(yaml_text.require_document(source, content), overrides)
    matrix = combinations(document)
    base = without_matrix(document)
    if matrix is None:
        return [dataclasses.replace(_load(base, content, defaults), sets=tuple(sets))]
    _require_not_varied(document, overrides, matrix)
    jobs = [_load(apply_overrides(base, each.overrides), content, defaults) for each in matrix]
    first = jobs[0].spec.lq
    sweep = Sweep(name=first.name or "job", joins=first.group, jobs=len(jobs))
    _require_different(document, jobs, matrix)
    return [_sweep_job(job, each, sweep, tuple(sets)) for job, each in zip(jobs, matrix, strict=True)]


def _read(path: Path | JobText) -> tuple[Path, bytes]:
    """Return the name of a job file for errors, and its content."""
    if isinstance(path, JobText):
        return Path(path.name), path.content
    source = Path(f"<{_STDIN_NAME}>") if path == STDIN else Path.cwd() / path
    return source, yaml_text.read(source, stdin=path == STDIN)


def _sweep_job(job: LoadedJob, combination: Combination, sweep: Sweep, sets: tuple[str, ...]) -> LoadedJob:
    """Give a job of a sweep its name, its group, and its own folder for the published adapter."""
    own = {"name": job_name(sweep.name, combination.label), "group": sweep.joins or sweep.name}
    target, varied = job.spec.adapter_path, combination.varied
    if target is not None and "adapter_path" not in varied:
        target = str(Path(target) / combination.folder)
    spec = job.spec.model_copy(update={"lq": job.spec.lq.model_copy(update=own), "adapter_path": target})
    return dataclasses.replace(job, spec=spec, sweep=sweep, label=combination.label, varied=varied, sets=sets)


def _require_not_varied(document: Document, overrides: Sequence[Override], matrix: Sequence[Combination]) -> None:
    """Refuse a `--set` whose key the matrix varies: it would have no effect."""
    varied = {override.key_path for combination in matrix for override in combination.overrides}
    for override in overrides:
        key_path = override.key_path
        if key_path[: len(IN_MATRIX)] == IN_MATRIX[: len(key_path)]:
            continue
        if any(overlap(key_path, other) for other in varied):
            text = f"the matrix varies this key; set its values with --set 'lq.matrix.{dotted(key_path)}=[...]'"
            raise invalid(document.source, override.lines[key_path], text)


def _require_different(document: Document, jobs: Sequence[LoadedJob], matrix: Sequence[Combination]) -> None:
    """Refuse a sweep in which two jobs would train the same run."""
    labels: dict[str, str] = {}
    for job, combination in zip(jobs, matrix, strict=True):
        spec = job.spec
        if spec.lr_schedule is not None:
            spec = spec.model_copy(update={"learning_rate": 0.0})  # not used
        other = labels.setdefault(spec.model_dump_json(), combination.label)
        if other != combination.label:
            unused = "; learning_rate has no effect with lr_schedule" if spec is not job.spec else ""
            text = f"{dotted(IN_MATRIX)}: '{other}' and '{combination.label}' are the same run{unused}"
            raise invalid(document.source, document.line(IN_MATRIX), text)


def _load(document: Document, content: bytes, defaults: LqSpec | None) -> LoadedJob:
    document, lengths, wrong_lengths = with_length(document, current=Path.cwd())
    spec, problems = _read_spec(document, defaults=defaults)
    problems += wrong_lengths
    notes: list[str] = []
    if spec is not None:
        problems += training_problems(document, spec)
        renamed = any("'num_layers" in problem.text for problem in problems)  # its default is a fault of the old name
        spec, notes, wrong_paths = resolve_paths(document, spec, current=Path.cwd())
        known = {problem.key_path for problem in problems} | ({("num_layers",)} if renamed else set())
        problems += [each for each in wrong_paths if each.key_path not in known]
    if spec is None or problems:
        raise all_problems(document.source, problems)
    _require_utf8_paths(document, spec)
    notes += lengths
    if spec.trust_remote_code:
        notes.append("trust_remote_code is on: lq runs code that comes with the model")
    if spec.config is not None:
        notes.append("config: is MLX-LM's own -c; lq ignores it")
    return LoadedJob(
        spec=_with_name(spec, document.source),
        notes=tuple(notes),
        source=document.source,
        content=content,
        data_line=document.line(("data",)),
        line_of=document.line,
    )


def _read_spec(
    document: Document, *, defaults: LqSpec | None = None, keep_nulls: bool = False
) -> tuple[JobSpec | None, list[Problem]]:
    """Return the spec and the problems of a file; with problems, the spec has defaults for the keys that have one."""
    own = document.value.get("lq")
    validation.require_format(document, own.get("format") if isinstance(own, dict) else None)
    known = validation.KnownKeys(document, JobSpec, keep_nulls=keep_nulls)
    value, own = known.value, known.value.get("lq", {})
    if defaults is not None and isinstance(own, dict):
        value = value | {"lq": _merged(defaults.model_dump(mode="json", exclude_unset=True), own)}
    spec, problems = validation.check(document, JobSpec, value)
    if spec is None:
        wrong = {problem.key_path[0] for problem in problems if problem.key_path}
        spec, _ = validation.check(document, JobSpec, {key: part for key, part in value.items() if key not in wrong})
    trainer = other_trainer(document.value, validation.levels(JobSpec)) if known.problems else None
    about = [Problem(key_path=(), line=None, text=trainer)] if trainer is not None else []
    return spec, [*about, *known.problems, *problems]


def load_frozen(path: Path) -> JobSpec:
    """Read the effective configuration that `dump_job` wrote; raise ConfigInvalid if this lq cannot read it."""
    spec, problems = _read_spec(yaml_text.require_document(path), keep_nulls=True)
    if spec is None or problems:
        raise all_problems(path, problems)
    return spec


def dump_job(spec: JobSpec) -> str:
    """Return the effective configuration as YAML: all keys in MLX-LM's order, `lq:` last."""
    return yaml_text.dump(spec.model_dump(mode="json"))


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


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `under` with the keys of `over`, recursively for mappings."""
    merged = {**under, **over}
    for key in under.keys() & over.keys():
        if isinstance(under[key], dict) and isinstance(over[key], dict):
            merged[key] = _merged(under[key], over[key])
    return merged


def _with_name(spec: JobSpec, source: Path) -> JobSpec:
    if spec.lq.name is not None:
        return spec
    stem = _STDIN_NAME if source.name == f"<{_STDIN_NAME}>" else source.stem
    printable = "".join(char for char in stem if char.isprintable()).strip()
    lq = spec.lq.model_copy(update={"name": printable[:MAX_NAME].strip() or "job"})
    return spec.model_copy(update={"lq": lq})


def _require_utf8_paths(document: Document, spec: JobSpec) -> None:
    """Refuse folder names that are not UTF-8: a YAML file cannot contain them."""
    paths = (spec.model, spec.data, spec.resume_adapter_file, spec.adapter_path, document.source.stem)
    try:
        for path in paths:
            (path or "").encode()
    except UnicodeEncodeError as error:
        text = "the name of the file, or of a folder that it names, is not UTF-8; rename it"
        raise invalid(document.source, None, text) from error
