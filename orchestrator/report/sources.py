"""What a report reads besides the records of the store: the job folder and the facts that the trainer reported."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from configs.load import load_frozen
from jobs.model.errors import LqError
from jobs.model.events import number
from jobs.model.job_dir import JobDir
from jobs.model.run_plan import Stage, from_json
from jobs.model.spec import JobSpec
from orchestrator.report.facts import (
    AdapterFacts,
    AdapterFile,
    Answer,
    DataFile,
    Dataset,
    Overlap,
    Parameters,
    RunSettings,
    TokenizedFile,
    Twin,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folder:
    """The content of a job folder."""

    settings: RunSettings | None
    stages: tuple[Stage, ...]
    data: tuple[DataFile, ...]
    versions: Mapping[str, str]
    host: Mapping[str, str]
    adapter: AdapterFacts
    unread: tuple[str, ...]


def read_folder(job_dir: JobDir) -> Folder:
    """Return the content of a job folder. Files that are missing or unreadable are listed in `unread`."""
    unread: list[str] = []
    provenance = _provenance(job_dir.provenance, unread)
    return Folder(
        settings=_settings(job_dir.config, unread),
        stages=_stages(job_dir.run_plan, unread),
        data=_data_files(provenance),
        versions=_words(provenance.get("versions")),
        host=_words(provenance.get("host")),
        adapter=_adapter(job_dir.adapters, unread),
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
    }
    names = {field.name for field in dataclasses.fields(RunSettings)} - derived.keys()
    return RunSettings(**derived, **{name: getattr(spec, name) for name in names})


def _stages(path: Path, unread: list[str]) -> tuple[Stage, ...]:
    try:
        return from_json(path.read_text(encoding="utf-8")).stages
    except (LqError, OSError, UnicodeDecodeError) as error:
        unread.append(_line(path, error))
        return ()


def _provenance(path: Path, unread: list[str]) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        unread.append(_line(path, error))
        return {}
    if not isinstance(content, dict):
        unread.append(f"{path.name}: not a JSON object")
        return {}
    return content


def _data_files(provenance: Mapping[str, Any]) -> tuple[DataFile, ...]:
    """Return the files in `data.files` of provenance.json, a mapping by name or a list of objects with a path."""
    data = provenance.get("data")
    files = data.get("files", data) if isinstance(data, dict) else data
    if isinstance(files, dict):
        return tuple(_data_file(str(name), item) for name, item in files.items() if isinstance(item, dict))
    if isinstance(files, list):
        return tuple(_data_file("", item) for item in files if isinstance(item, dict))
    return ()


def _data_file(name: str, item: Mapping[str, Any]) -> DataFile:
    return DataFile(
        name=Path(str(item.get("path") or item.get("name") or name)).name,
        rows=_whole(item.get("rows")),
        size_bytes=_whole(item.get("bytes")),
        sha256=item["sha256"] if isinstance(item.get("sha256"), str) else None,
    )


def _words(value: object) -> dict[str, str]:
    """Return a flat mapping of strings, without nested values and nulls."""
    if not isinstance(value, dict):
        return {}
    return {str(key): str(item) for key, item in value.items() if isinstance(item, str | int | float)}


def _adapter(folder: Path, unread: list[str]) -> AdapterFacts:
    published = _published(folder / "lq.json", unread)
    return AdapterFacts(
        path=str(folder),
        best=_adapter_file(folder / "adapters.safetensors", published.get("best"), unread),
        final=_adapter_file(folder / "final_adapters.safetensors", published.get("final"), unread),
    )


def _published(path: Path, unread: list[str]) -> Mapping[str, Any]:
    """Return adapters/lq.json, which contains the iteration of each file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        unread.append(_line(path, error))
        return {}
    return content if isinstance(content, dict) else {}


def _adapter_file(path: Path, published: object, unread: list[str]) -> AdapterFile | None:
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
    except FileNotFoundError:
        return None
    except OSError as error:
        unread.append(_line(path, error))
        return None
    iteration = published.get("iteration") if isinstance(published, dict) else None
    return AdapterFile(name=path.name, iteration=_whole(iteration), size_bytes=size, sha256=sha256)


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _line(path: Path, error: Exception) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).replace("\n", " ")
    return f"{path.name}: {reason}"


FILES = ("train", "valid", "test")

Reported = Mapping[str, Any]


def dataset(reported: Reported) -> Dataset | None:
    """Return the tokenised data set; None if the trainer did not report it."""
    found = reported.get("dataset")
    if not isinstance(found, dict):
        return None
    overlaps = found.get("also_trained") or {}
    return Dataset(
        files=tuple(_file(name, found[name]) for name in FILES if (found.get(name) or {}).get("rows")),
        max_seq_length=_whole(found.get("max_seq_length")),
        padding_share=number(found.get("padding_share")),
        repeated_inside=next((_whole(overlap.get("inside")) for overlap in overlaps.values()), None),
        overlaps=tuple(
            _overlap(name, found[name]["rows"], overlaps[name])
            for name in FILES
            if name in overlaps and (found.get(name) or {}).get("rows")
        ),
    )


def _file(name: str, file: Reported) -> TokenizedFile:
    return TokenizedFile(
        name=name,
        rows=int(file["rows"]),
        tokens=_whole(file.get("tokens")),
        supervised_tokens=_whole(file.get("supervised_tokens")),
        truncated=_whole(file.get("truncated")),
        shortest=_whole(file.get("shortest")),
        median=number(file.get("median")),
        p95=number(file.get("p95")),
        longest=_whole(file.get("longest")),
    )


def _overlap(name: str, rows: int, overlap: Reported) -> Overlap:
    twins = [
        Twin(row=twin["row"], train_row=twin["train_row"], share=twin["share"])
        for twin in overlap.get("examples") or ()
    ]
    return Overlap(
        name=name,
        rows=rows,
        exact=int(overlap["exact"]),
        measured=_whole(overlap.get("measured")),
        near=_whole(overlap.get("near")),
        examples=tuple(twins),
    )


def supervised_tokens(reported: Reported, name: str) -> list[int] | None:
    """Return the supervised tokens of each row of a file; None if the trainer did not report them."""
    dataset_fact = reported.get("dataset")
    tokens = (dataset_fact.get("learned") or {}).get(name) if isinstance(dataset_fact, dict) else None
    return [int(count) for count in tokens] if tokens else None


def parameters(reported: Reported) -> Parameters | None:
    """Return the trained part of the model; None if the trainer did not report it."""
    found = reported.get("parameters")
    if not isinstance(found, dict):
        return None
    return Parameters(
        trained=int(found["trained"]),
        total=int(found["total"]),
        targets=tuple(found.get("targets") or ()),
        layers=int(found.get("layers") or 0),
    )


def answers(reported: Reported) -> tuple[Answer, ...]:
    """Return the answers to the prompts."""
    places = sorted({int(name.rpartition(".")[2]) for name in reported if name.startswith("answer.")})
    return tuple(
        _answer(reported.get(f"answer.before.{place}") or {}, reported.get(f"answer.after.{place}") or {})
        for place in places
    )


def _answer(before: Reported, after: Reported) -> Answer:
    either = after or before
    return Answer(
        prompt=str(either.get("prompt", "")),
        before=before.get("answer"),
        after=after.get("answer"),
        iteration=_whole(after.get("iteration")),
        max_tokens=_whole(either.get("max_tokens")),
    )
