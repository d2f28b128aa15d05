"""Where the paths of a job file lead: beside the file first, then the current folder, as mlx_lm.lora reads them.

Looks at folders and at a model's config.json; reads no weights and no data.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.errors import Where, dotted, invalid, one_line, show, told
from configs.training_rules import hub_entries
from configs.yaml_text import Document
from jobs.model.errors import Line, ModelMissing
from jobs.model.spec import JobSpec

_PATH_KEYS = ("model", "data", "adapter_path", "resume_adapter_file")
_HUB_KEYS = ("model", "data", "path")
"""Keys whose value may name something on the Hugging Face hub."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def looks_like_path(value: str) -> bool:
    """Say whether a value can only mean a path: it begins like one, or is not of the hub's form org/name."""
    return value.startswith((".", "/", "~")) or not _HUB_NAME.fullmatch(value)


def require_absolute(document: Document) -> None:
    """Refuse relative paths in a file that was moved away from where they start.

    Raises:
        ConfigInvalid: there is one.
    """
    for where, key, value in _paths_named(document.value, ()):
        if value.startswith(("/", "~")) or (key in _HUB_KEYS and not looks_like_path(value)):
            continue
        text = f"{dotted(where)}: {show(value)} is relative, and a dropped file has left the folder it starts from"
        raise invalid(document.source, document.line(where), f"{text}; write the whole path, from / or ~")


def _paths_named(value: Any, where: Where) -> Iterator[tuple[Where, str, str]]:
    """Yield every path of a job file with its place and its key; those of a sweep are lists below the same keys."""
    if isinstance(value, str):
        keys = [part.rpartition(".")[2] for part in where if isinstance(part, str)]
        if keys and (keys[-1] in _PATH_KEYS or (keys[-1] == "path" and "hf_dataset" in keys)):
            yield where, keys[-1], value
        return
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for part, item in parts:
        yield from _paths_named(item, (*where, part))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResolvedPaths:
    """A spec whose paths are absolute, and what the user should be told about them."""

    spec: JobSpec
    notes: tuple[str, ...]


def place(document: Document, spec: JobSpec, *, current: Path) -> ResolvedPaths:
    """Make every path of a spec absolute and check the model.

    Args:
        document: the job file; relative paths start from its folder, or from the current one where it is no file.
        spec: what was read from it.
        current: the current folder, where a path is looked for when it is not beside the file.

    Raises:
        ModelMissing: the model is named by a path and cannot be loaded from there.
        ConfigInvalid: another named file is not there, or the model has fewer layers than asked for.
    """
    search = _Search(current / document.source.parent, current)
    changes: dict[str, Any] = {"model": _model(document, spec, search), "data": _data(spec, search)}
    if spec.resume_adapter_file is not None:
        changes["resume_adapter_file"] = _resume_file(document, spec.resume_adapter_file, search)
    if spec.adapter_path is not None:
        changes["adapter_path"] = str(absolute(search.beside, spec.adapter_path))
    if spec.hf_dataset is not None:
        changes["hf_dataset"] = _hub_data(spec, search)
    return ResolvedPaths(spec=spec.model_copy(update=changes), notes=tuple(search.notes))


class _Search:
    def __init__(self, beside: Path, current: Path) -> None:
        self.beside = beside
        self.current = current
        self.notes: list[str] = []

    def find(self, key: str, value: str) -> Path:
        """Return the path that exists, else the one beside the file."""
        beside = absolute(self.beside, value)
        here = absolute(self.current, value)
        if beside.exists() or not here.exists():
            return beside
        self.notes.append(one_line(f"{key}: not beside the file; using {here} of the current folder"))
        return here


def absolute(folder: Path, value: str) -> Path:
    """Return `value` as an absolute path, `~` and `..` resolved."""
    try:
        path = folder / Path(value).expanduser()
    except RuntimeError:  # ~name of nobody: a folder may be called so
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
    """Return the number of layers of a model folder, None where its config.json does not say."""
    if not folder.is_dir():
        raise _missing(source, line, f"model: is a file, name the folder it is in: {folder}")
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
    return ModelMissing(told(source, line, text))


def _data(spec: JobSpec, search: _Search) -> str:
    """Whether it can be trained on is configs/data_files.py's to say."""
    if spec.hf_dataset is not None:
        return spec.data  # MLX-LM does not look at it
    found = search.find("data", spec.data)
    if found.exists() or looks_like_path(spec.data):
        return str(found)
    search.notes.append(f"data: {spec.data} will be downloaded from the Hugging Face hub unless cached")
    return spec.data


def _resume_file(document: Document, value: str, search: _Search) -> str:
    found = search.find("resume_adapter_file", value)
    if not found.is_file():
        line = document.line(("resume_adapter_file",))
        raise invalid(document.source, line, f"resume_adapter_file: no such file: {found}")
    return str(found)


def _hub_data(spec: JobSpec, search: _Search) -> dict[str, Any] | tuple[dict[str, Any], ...]:
    """A data set of the hub may be named by a local folder as well."""
    placed = []
    for _, entry in hub_entries(spec):
        found = search.find("hf_dataset", entry["path"])
        placed.append(entry | {"path": str(found)} if found.exists() else entry)
    return placed[0] if isinstance(spec.hf_dataset, dict) else tuple(placed)
