"""What a report reads besides the records of the store: the job folder and the facts that the trainer reported."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from configs.load import load_frozen
from jobs.model.errors import LqError
from jobs.model.job_dir import JobDir
from jobs.model.run_plan import Stage, from_json
from jobs.model.spec import JobSpec
from orchestrator.report.facts import (
    AdapterFacts,
    AdapterFile,
    Answer,
    DataFile,
    Dataset,
    Evaluation,
    Overlap,
    Parameters,
    RunSettings,
    TokenizedFile,
)
from workers.checkpoints import publishing

FILES = ("train", "valid", "test")
EVALUATIONS = "evaluations.json"

Reported = Mapping[str, Any]

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folder:
    """The content of a job folder."""

    settings: RunSettings | None
    stages: tuple[Stage, ...]
    data: tuple[DataFile, ...]
    versions: Mapping[str, str]
    host: Mapping[str, str]
    adapter: AdapterFacts
    evaluations: tuple[Evaluation, ...]
    unread: tuple[str, ...]


def read_folder(job_dir: JobDir) -> Folder:
    """Return the content of a job folder. Files that are missing or unreadable are listed in `unread`."""
    unread: list[str] = []
    provenance = _json_object(job_dir.provenance, unread)
    return Folder(
        settings=_settings(job_dir.config, unread),
        stages=_stages(job_dir.run_plan, unread),
        data=_data_files(provenance.get("data")),
        versions=_words(provenance.get("versions")),
        host=_words(provenance.get("host")),
        adapter=_adapter(job_dir.adapters, unread),
        evaluations=evaluations(job_dir, unread),
        unread=tuple(unread),
    )


def _settings(path: Path, unread: list[str]) -> RunSettings | None:
    try:
        return settings_of(load_frozen(path))
    except (LqError, OSError) as error:
        unread.append(_line(path, error))
        return None


def settings_of(spec: JobSpec) -> RunSettings:
    """Return the settings that a report shows. Most have the name of their key in the job file."""
    lora = spec.lora_parameters if spec.fine_tune_type != "full" else None
    schedule = spec.lr_schedule
    derived: dict[str, Any] = {
        "rank": lora.rank if lora else None,
        "scale": lora.scale if lora else None,
        "dropout": lora.dropout if lora else None,
        "learning_rate": schedule.arguments[0] if schedule else spec.learning_rate,
        "lr_schedule": schedule.name if schedule else None,
        "effective_batch": spec.batch_size * spec.grad_accumulation_steps,
        "batching": spec.lq.batching,
        "objective": _objective(spec),
    }
    names = {field.name for field in dataclasses.fields(RunSettings)} - derived.keys()
    return RunSettings(**derived, **{name: getattr(spec, name) for name in names})


def _objective(spec: JobSpec) -> str:
    """Return the objective with its parameters."""
    values = spec.lq.objective.model_dump(mode="json", exclude={"name"})
    given = ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )
    return f"{spec.lq.objective.name} ({given})" if given else spec.lq.objective.name


def _stages(path: Path, unread: list[str]) -> tuple[Stage, ...]:
    try:
        return from_json(path.read_text(encoding="utf-8")).stages
    except (LqError, OSError, UnicodeDecodeError) as error:
        unread.append(_line(path, error))
        return ()


def _json_object(path: Path, unread: list[str], *, required: bool = True) -> Reported:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if required or not isinstance(error, FileNotFoundError):
            unread.append(_line(path, error))
        return {}
    if not isinstance(content, dict):
        unread.append(f"{path.name}: not a JSON object")
        return {}
    return content


def _data_files(data: object) -> tuple[DataFile, ...]:
    files = data.get("files") if isinstance(data, dict) else None
    return tuple(
        DataFile(
            name=Path(str(item.get("path") or name)).name,
            rows=_whole(item.get("rows")),
            size_bytes=_whole(item.get("bytes")),
            sha256=item["sha256"] if isinstance(item.get("sha256"), str) else None,
        )
        for name, item in (files if isinstance(files, dict) else {}).items()
        if isinstance(item, dict)
    )


def _words(value: object) -> dict[str, str]:
    """Return a flat mapping of strings, without nested values and nulls."""
    if not isinstance(value, dict):
        return {}
    return {str(key): str(item) for key, item in value.items() if isinstance(item, str | int | float)}


def _adapter(folder: Path, unread: list[str]) -> AdapterFacts:
    about = _json_object(folder / publishing.ABOUT, unread, required=False)
    best, final = (
        _adapter_file(folder / name, about.get(key), unread)
        for name, key in ((publishing.BEST, "best"), (publishing.FINAL, "final"))
    )
    return AdapterFacts(path=str(folder), best=best, final=final)


def evaluations(job_dir: JobDir, unread: list[str]) -> tuple[Evaluation, ...]:
    """Return what `lq test` measured."""
    kept = _json_object(job_dir.report / EVALUATIONS, unread, required=False)
    try:
        return tuple(read_as(Evaluation, one) for one in kept.get("evaluations", ()))
    except ValueError as error:
        unread.append(_line(Path(EVALUATIONS), error))
        return ()


def _adapter_file(path: Path, about: object, unread: list[str]) -> AdapterFile | None:
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except FileNotFoundError:
        return None
    except OSError as error:
        unread.append(_line(path, error))
        return None
    iteration = about.get("iteration") if isinstance(about, dict) else None
    return AdapterFile(name=path.name, iteration=_whole(iteration), size_bytes=size, sha256=sha256)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _line(path: Path, error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).replace("\n", " ")
    return f"{path.name}: {reason}"


# --- facts that the trainer reported; None for those that it did not ---


def dataset(reported: Reported) -> Dataset | None:
    """Return the tokenised data set."""
    found = reported.get("dataset")
    if not isinstance(found, dict):
        return None
    files = [read_as(TokenizedFile, found[name], name=name) for name in FILES if (found.get(name) or {}).get("rows")]
    overlaps = found.get("also_trained") or {}
    return Dataset(
        files=tuple(files),
        max_seq_length=found.get("max_seq_length"),
        padding_share=found.get("padding_share"),
        repeated_inside=next((overlap.get("inside") for overlap in overlaps.values()), None),
        overlaps=tuple(
            read_as(Overlap, overlaps[file.name], name=file.name, rows=file.rows)
            for file in files
            if file.name in overlaps
        ),
    )


def supervised_tokens(reported: Reported, name: str) -> list[int] | None:
    """Return the supervised tokens of each row of a file."""
    found = reported.get("dataset")
    tokens = (found.get("learned") or {}).get(name) if isinstance(found, dict) else None
    return [int(count) for count in tokens] if tokens else None


def parameters(reported: Reported) -> Parameters | None:
    """Return the trained part of the model."""
    found = reported.get("parameters")
    return read_as(Parameters, found) if isinstance(found, dict) else None


def answers(reported: Reported) -> tuple[Answer, ...]:
    """Return the answers to the prompts."""
    places = sorted({int(name.rpartition(".")[2]) for name in reported if name.startswith("answer.")})
    return tuple(
        _answer(reported.get(f"answer.before.{place}") or {}, reported.get(f"answer.after.{place}") or {})
        for place in places
    )


def _answer(before: Reported, after: Reported) -> Answer:
    return read_as(
        Answer,
        {**before, **after},
        iteration=after.get("iteration"),
        before=before.get("answer"),
        after=after.get("answer"),
    )


def read_as(kind: type[_T], values: Reported, **more: object) -> _T:
    """Return values as a dataclass, without those that it does not have."""
    return TypeAdapter(kind).validate_python({**values, **more})
