"""The paths of a job file. A relative path starts from the file's folder, or else from the current folder.

This module looks at folders and at a model's config.json, not at weights or data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.errors import KeyPath, as_written, dotted, error_line, invalid, one_line
from configs.training_rules import hub_entries
from configs.yaml_text import Document
from jobs.model.errors import Line, ModelMissing
from jobs.model.spec import JobSpec

_PATH_KEYS = ("model", "data", "adapter_path", "resume_adapter_file")
_HUB_KEYS = ("model", "data", "path")  # keys whose value can also be a name on the Hugging Face hub

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def looks_like_path(value: str) -> bool:
    """Return whether a value can only be a path: it starts like one, or does not have the hub's form org/name."""
    return value.startswith((".", "/", "~")) or not _HUB_NAME.fullmatch(value)


def require_absolute(document: Document) -> None:
    """Refuse relative paths in a file of the inbox, which lq moves."""
    for key_path, key, value in _path_values(document.value, ()):
        if value.startswith(("/", "~")) or (key in _HUB_KEYS and not looks_like_path(value)):
            continue
        text = f"{dotted(key_path)}: {as_written(value)} is relative, and lq moves files out of the inbox"
        raise invalid(document.source, document.line(key_path), f"{text}; write an absolute path, from / or ~")


def _path_values(value: Any, key_path: KeyPath) -> Iterator[tuple[KeyPath, str, str]]:
    """Yield key path, key and value of every path in a job file, those in the lists of a matrix included."""
    if isinstance(value, str):
        keys = [part.rpartition(".")[2] for part in key_path if isinstance(part, str)]
        if keys and (keys[-1] in _PATH_KEYS or (keys[-1] == "path" and "hf_dataset" in keys)):
            yield key_path, keys[-1], value
        return
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, item in parts:
        yield from _path_values(item, (*key_path, part))


def resolve_paths(document: Document, spec: JobSpec, *, current: Path) -> tuple[JobSpec, list[str]]:
    """Make every path of a spec absolute and check the model; return the spec, and notes for the user.

    Raises:
        ModelMissing: the model is named by a path and cannot be loaded from it.
        ConfigInvalid: another file does not exist, or the model has fewer layers than `num_layers`.
    """
    search = _Search(current / document.source.parent, current)
    changes: dict[str, Any] = {"model": _model(document, spec, search), "data": _data(spec, search)}
    if spec.resume_adapter_file is not None:
        changes["resume_adapter_file"] = _resume_file(document, spec.resume_adapter_file, search)
    if spec.adapter_path is not None:
        changes["adapter_path"] = str(absolute(search.beside, spec.adapter_path))
    if spec.hf_dataset is not None:
        changes["hf_dataset"] = _hub_data(spec, search)
    return spec.model_copy(update=changes), search.notes


def data_folder(document: Document, current: Path) -> Path | None:
    """Return the folder that `data` names; None for a data set of the hub."""
    value = document.value.get("data")
    if document.value.get("hf_dataset") is not None or not isinstance(value, str):
        return None
    folder = _Search(current / document.source.parent, current).find("data", value)
    return folder if folder.exists() or looks_like_path(value) else None


class _Search:
    def __init__(self, beside: Path, current: Path) -> None:
        self.beside = beside
        self.current = current
        self.notes: list[str] = []

    def find(self, key: str, value: str) -> Path:
        """Return the path that exists; by default the one next to the file."""
        beside = absolute(self.beside, value)
        here = absolute(self.current, value)
        if beside.exists() or not here.exists():
            return beside
        self.notes.append(one_line(f"{key}: not found next to the job file; using {here} in the current folder"))
        return here


def absolute(folder: Path, value: str) -> Path:
    """Return `value` as an absolute path, with `~` and `..` resolved."""
    try:
        path = folder / Path(value).expanduser()
    except RuntimeError:  # no user has this name: the folder may be called ~name
        path = folder / value
    return path.resolve() if ".." in path.parts else path


def _model(document: Document, spec: JobSpec, search: _Search) -> str:
    folder = search.find("model", spec.model)
    line = document.line(("model",))
    if folder.exists():
        layers = _layers(document.source, line, folder)
        if layers is not None and spec.num_layers > layers:
            default = "" if "num_layers" in document.value else " (the default)"
            text = f"num_layers: {spec.num_layers}{default}, but the model has {layers} layers; write {layers} or less"
            raise invalid(document.source, document.line(("num_layers",)), f"{text}, or -1 for all")
        return str(folder)
    if looks_like_path(spec.model):
        text = f"model: no such folder: {folder} (a model on the Hugging Face hub is named org/name)"
        raise _missing(document.source, line, text)
    search.notes.append(f"model: {spec.model} will be downloaded from the Hugging Face hub unless cached")
    return spec.model


def _layers(source: Path, line: Line | None, folder: Path) -> int | None:
    """Return the number of layers of a model folder; None if its config.json does not contain it."""
    if not folder.is_dir():
        raise _missing(source, line, f"model: is a file; name the folder that contains it: {folder}")
    if not any(weights.exists() for weights in folder.glob("model*.safetensors")):
        raise _missing(source, line, f"model: no model*.safetensors in {folder}")
    try:
        content = json.loads((folder / "config.json").read_bytes())
    except FileNotFoundError as error:
        raise _missing(source, line, f"model: no config.json in {folder}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise _missing(source, line, f"model: config.json cannot be read in {folder}") from error
    for level in (content, content.get("text_config") if isinstance(content, dict) else None):
        if isinstance(level, dict) and isinstance(level.get("num_hidden_layers"), int):
            return int(level["num_hidden_layers"])
    return None


def _missing(source: Path, line: Line | None, text: str) -> ModelMissing:
    return ModelMissing(error_line(source, line, text))


def _data(spec: JobSpec, search: _Search) -> str:
    """Return the data folder, which configs/data_files.py checks, or the name of a data set."""
    if spec.hf_dataset is not None:
        return spec.data  # MLX-LM ignores it
    folder = search.find("data", spec.data)
    if folder.exists() or looks_like_path(spec.data):
        return str(folder)
    search.notes.append(f"data: {spec.data} will be downloaded from the Hugging Face hub unless cached")
    return spec.data


def _resume_file(document: Document, value: str, search: _Search) -> str:
    path = search.find("resume_adapter_file", value)
    if not path.is_file():
        line = document.line(("resume_adapter_file",))
        raise invalid(document.source, line, f"resume_adapter_file: no such file: {path}")
    return str(path)


def _hub_data(spec: JobSpec, search: _Search) -> dict[str, Any] | tuple[dict[str, Any], ...]:
    """Replace names that are local folders by their paths."""
    resolved = []
    for _, entry in hub_entries(spec):
        folder = search.find("hf_dataset", entry["path"])
        resolved.append(entry | {"path": str(folder)} if folder.exists() else entry)
    return resolved[0] if isinstance(spec.hf_dataset, dict) else tuple(resolved)
