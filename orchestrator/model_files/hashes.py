"""The SHA-256 of a model's files, recorded at submit, so that a later change of their content is found.

A hash is cached by path, size, times and inode, so a large model is read once. The submit reads for at most SUBMIT_S;
the first attempt hashes what is left, before the trainer reads the same files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from jobs.model.job_dir import JobDir
from orchestrator.model_files.hub_cache import folder_of
from workers.files.atomic import write_json

SUBMIT_S = 10.0
"""A submit hashes for this many seconds. SHA-256 takes 0.4 to 2 GB/s on one core; several files are read at once."""

LOADED = (
    *("config.json", "generation_config.json", "hf_quant_config.json", "model*.safetensors", "model*.index.json"),
    *("*.py", "tokenizer*", "*.model", "*.tiktoken", "vocab*", "merges*", "special_tokens_map.json"),
    *("added_tokens.json", "chat_template*", "additional_chat_templates/*"),
)
"""What MLX-LM and its tokenizers load from a model's folder (mlx_lm/utils.py, mlx_lm/tokenizer_utils.py)."""

_FORMAT = 1
_THREADS = 4
_CHUNK = 4 << 20
_SETTLED_NS = 2_000_000_000
"""A file that changed this recently may change again without a new time, so its hash is not cached."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileHash:
    """The content of a file of the model."""

    file: str  # path in the model's folder
    bytes: int
    mtime_ns: int  # last change, in nanoseconds
    sha256: str | None  # in hex; None if the submit did not get to it: the first attempt fills it in


def hash_files(model: str, cache: Path | None, *, within_s: float | None = None) -> list[FileHash]:
    """Hash the files that MLX-LM would load, the smallest first; empty if the model is not on this machine.

    Args:
        cache: the cache folder of the home; None to cache nothing.
        within_s: after this many seconds the hashes of the remaining files are None; None for no limit.
    """
    folder = folder_of(model)
    if folder is None:
        return []
    paths = {path for pattern in LOADED for path in folder.glob(pattern) if path.is_file()}
    ordered = sorted(paths, key=lambda path: (path.stat().st_size, path))
    deadline = None if within_s is None else time.monotonic() + within_s
    with _Cache(cache, folder) as known, ThreadPoolExecutor(_THREADS) as pool:
        return sorted(pool.map(lambda path: _hash(path, folder, known, deadline), ordered), key=lambda one: one.file)


def changed_files(job_dir: JobDir, model: str, cache: Path | None) -> list[str]:
    """Compare the model's files with those recorded in a job's provenance; return one line for each that differs.

    Hashes that the submit did not record, because the model was not downloaded yet or is large, are recorded now.
    """
    recorded, present = _recorded(job_dir), hash_files(model, cache)
    if not present:
        return []  # the trainer downloads it, or reports that it is missing
    changed = list(_differences(recorded, {one.file: one for one in present})) if recorded else []
    if not changed and list(recorded.values()) != present:
        record_files(job_dir, present)
    return changed


def record_files(job_dir: JobDir, files: Sequence[FileHash]) -> None:
    """Record the model's files in a job's provenance, in place of those recorded there."""
    with suppress(OSError, ValueError, KeyError, TypeError):  # `lq verify` reports an unreadable provenance.json
        content = json.loads(job_dir.provenance.read_text())
        content["model"]["files"] = to_json(files)
        write_json(job_dir.provenance, content)


def _recorded(job_dir: JobDir) -> dict[str, FileHash]:
    with suppress(OSError, ValueError, KeyError, TypeError):
        entries = json.loads(job_dir.provenance.read_text())["model"]["files"]
        return {str(entry["file"]): FileHash(**entry) for entry in entries}
    return {}


def to_json(files: Iterable[FileHash]) -> list[dict[str, Any]]:
    """Return the record of hashes in provenance.json."""
    return [dataclasses.asdict(one) for one in files]


def _differences(recorded: Mapping[str, FileHash], present: Mapping[str, FileHash]) -> Iterable[str]:
    for name in sorted({*recorded, *present}):
        then, now = recorded.get(name), present.get(name)
        if then is None:
            yield f"{name} was added after the submit"
        elif now is None:
            yield f"{name} was deleted after the submit"
        elif then.sha256 is None:
            if (then.bytes, then.mtime_ns) != (now.bytes, now.mtime_ns):
                yield f"{name} was written again after the submit, before lq had hashed it"
        elif then.sha256 != now.sha256:
            is_now = now.sha256[:12] if now.sha256 is not None else "unreadable"
            yield f"{name} has another content than at the submit (SHA-256 {then.sha256[:12]}, now {is_now})"


def _hash(path: Path, folder: Path, known: _Cache, deadline: float | None) -> FileHash:
    name, before = path.relative_to(folder).as_posix(), path.stat()
    sha256 = known.get(name, before)
    if sha256 is None:
        with suppress(OSError):  # a file that cannot be read has no hash
            sha256 = _sha256(path, deadline)
    if sha256 is not None and _identity(path.stat()) == _identity(before):
        known.put(name, before, sha256)
    return FileHash(file=name, bytes=before.st_size, mtime_ns=before.st_mtime_ns, sha256=sha256)


def _sha256(path: Path, deadline: float | None) -> str | None:
    digest, chunk = hashlib.sha256(), bytearray(_CHUNK)
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(chunk):
            if deadline is not None and time.monotonic() > deadline:
                return None
            digest.update(memoryview(chunk)[:size])
    return digest.hexdigest()


class _Cache:
    """The hashes of one model's folder, in one file of the cache; a damaged or missing one is empty."""

    def __init__(self, cache: Path | None, folder: Path) -> None:
        name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]
        self._path = cache / "hashes" / f"{name}.json" if cache is not None else None
        self._old: Mapping[str, Sequence[Any]] = {}
        self._new: dict[str, Sequence[Any]] = {}

    def __enter__(self) -> _Cache:
        with suppress(OSError, ValueError, AttributeError):
            content = json.loads(self._path.read_text()) if self._path is not None else {}
            self._old = content["files"] if content.get("format") == _FORMAT else {}
        return self

    def __exit__(self, *_: object) -> None:
        if self._path is None or self._new == self._old:
            return
        partial = self._path.with_suffix(f".{os.getpid()}.partial")
        with suppress(OSError):  # a cache that cannot be written only costs time
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            partial.write_text(json.dumps({"format": _FORMAT, "files": self._new}))
            partial.replace(self._path)

    def get(self, name: str, status: os.stat_result) -> str | None:
        entry = self._old.get(name)
        return str(entry[-1]) if entry is not None and list(entry[:-1]) == _identity(status) else None

    def put(self, name: str, status: os.stat_result, sha256: str) -> None:
        if time.time_ns() - status.st_ctime_ns > _SETTLED_NS:
            self._new[name] = [*_identity(status), sha256]


def _identity(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_dev, status.st_ino]
