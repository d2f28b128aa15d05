"""The paths of a job file. All relative paths of a file start in one folder.

That is the current folder, as in mlx_lm.lora, or the folder of the file if more of the model, the data and the adapter
to start from exist there. This module looks at folders and at a model's config.json, not at weights or data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from configs.errors import KeyPath, Problem, as_written, dotted, invalid, one_line
from configs.training_rules import hub_entries
from configs.yaml_text import Document
from jobs.model.errors import ConfigInvalid, DataInvalid, InvalidInput, ModelMissing
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


def resolve_paths(document: Document, spec: JobSpec, *, current: Path) -> tuple[JobSpec, list[str], list[Problem]]:
    """Make every path of a spec absolute and check the model; return the spec, notes for the user, and problems."""
    paths = _Paths(document, spec, current)
    return paths.resolved(), paths.notes, paths.problems


def data_folder(document: Document, current: Path) -> Path | None:
    """Return the folder that `data` names; None for a data set of the hub."""
    value = document.value.get("data")
    if document.value.get("hf_dataset") is not None or not isinstance(value, str):
        return None
    folder = absolute(_folders(document, current)[0], value)
    return folder if folder.exists() or looks_like_path(value) else None


def _folders(document: Document, current: Path) -> tuple[Path, Path]:
    """Return the folder in which the relative paths of a file start, and the other possible one."""
    beside = current / document.source.parent
    named = [value for _, key, value in _path_values(document.value, ()) if key != "adapter_path"]
    relative = [value for value in named if not value.startswith(("/", "~"))]
    if sum((beside / value).exists() for value in relative) > sum((current / value).exists() for value in relative):
        return beside, current
    return current, beside


class _Paths:
    def __init__(self, document: Document, spec: JobSpec, current: Path) -> None:
        self.notes: list[str] = []
        self.problems: list[Problem] = []
        self._document, self._spec = document, spec
        self._base, self._other = _folders(document, current)
        self._of_file = self._base != current

    def resolved(self) -> JobSpec:
        spec, changes = self._spec, dict[str, Any]()
        changes["model"] = self._model()
        if spec.hf_dataset is None:  # MLX-LM ignores `data` otherwise; configs/data_files.py checks the folder
            changes["data"] = self._folder_or_hub_name(("data",), spec.data, "data set", DataInvalid)
        if spec.resume_adapter_file is not None:
            changes["resume_adapter_file"] = self._resume_file(spec.resume_adapter_file)
        if spec.adapter_path is not None:
            changes["adapter_path"] = str(self._absolute(spec.adapter_path))
        entries = [
            entry | {"path": self._folder_or_hub_name((*key_path, "path"), entry["path"], "data set", DataInvalid)}
            for key_path, entry in hub_entries(spec)
            if isinstance(entry.get("path"), str)
        ]
        if entries:
            changes["hf_dataset"] = entries[0] if isinstance(spec.hf_dataset, dict) else tuple(entries)
        return spec.model_copy(update=changes)

    def _absolute(self, value: str) -> Path:
        """Return a path of the file, and note once where relative paths start if there are two possible folders."""
        if self._base != self._other and not value.startswith(("/", "~")):
            what = "the folder of the job file" if self._of_file else "the current folder"
            note = one_line(f"relative paths start in {self._base}, {what}")
            self.notes = list(dict.fromkeys([note, *self.notes]))
        return absolute(self._base, value)

    def _folder_or_hub_name(self, key_path: KeyPath, value: str, what: str, error: type[InvalidInput]) -> str:
        """Return the path of a folder, or the name of a model or data set on the hub."""
        known = absolute(self._base, value).exists()
        on_hub = not value.startswith((".", "/", "~")) if len(key_path) > 1 else not looks_like_path(value)
        if not known and on_hub and not (self._other / value).exists():
            if len(key_path) == 1:
                self.notes.append(f"{key_path[0]}: {value} will be downloaded from the Hugging Face hub unless cached")
            return value
        if not known:
            self._missing(key_path, value, "folder", error, f" (a {what} on the Hugging Face hub is named org/name)")
        return str(self._absolute(value))

    def _missing(self, key_path: KeyPath, value: str, kind: str, error: type[InvalidInput], hint: str = "") -> None:
        path, other = self._absolute(value), absolute(self._other, value)
        if other != path and other.exists():
            hint = f"; {other} exists, but relative paths of this file start in {self._base}: write an absolute path"
        elif other != path:
            hint = f", and none in {self._other}{hint}"
        self._problem(key_path, f"no such {kind}: {path}{hint}", error)

    def _problem(self, key_path: KeyPath, text: str, error: type[InvalidInput]) -> None:
        line = self._document.line(key_path)
        self.problems.append(Problem(key_path=key_path, line=line, text=f"{dotted(key_path)}: {text}", error=error))

    def _model(self) -> str:
        named = self._folder_or_hub_name(("model",), self._spec.model, "model", ModelMissing)
        folder, wanted = Path(named), self._spec.num_layers
        if folder.is_absolute() and folder.exists():
            layers = _layers(folder)
            if not folder.is_dir():
                text = f"is a file; name the folder that contains it: {folder}"
                self._problem(("model",), text, ModelMissing)
            if layers is not None and wanted > layers:
                default = "" if "num_layers" in self._document.value else " (the default)"
                text = f"{wanted}{default}, but the model has {layers} layers; write {layers} or less, or -1 for all"
                self._problem(("num_layers",), text, ConfigInvalid)
        return named

    def _resume_file(self, value: str) -> str:
        path, key_path = self._absolute(value), ("resume_adapter_file",)
        if path.is_dir():
            inside = sorted(file.name for file in path.glob("*.safetensors"))
            best = "adapters.safetensors" if "adapters.safetensors" in inside or not inside else inside[-1]
            has = f"write {value.rstrip('/')}/{best}" if inside else "it contains no .safetensors file"
            self._problem(key_path, f"is a folder, not a file: {path}; {has}", ConfigInvalid)
        elif not path.is_file():
            self._missing(key_path, value, "file", ConfigInvalid)
        return str(path)


def _layers(folder: Path) -> int | None:
    """Return the number of layers of a model; None if it is unknown. orchestrator/model_files checks the files."""
    try:
        content = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    for level in (content, content.get("text_config") if isinstance(content, dict) else None):
        if isinstance(level, dict) and isinstance(level.get("num_hidden_layers"), int):
            return int(level["num_hidden_layers"])
    return None


def absolute(folder: Path, value: str) -> Path:
    """Return `value` as an absolute path, with `~` and `..` resolved."""
    try:
        path = folder / Path(value).expanduser()
    except RuntimeError:  # no user has this name: the folder may be called ~name
        path = folder / value
    return path.resolve() if ".." in path.parts else path
