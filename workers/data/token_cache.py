"""A cache of tokenized data files, for restarts and for other jobs with the same data. No mlx.

The key of a file contains everything its tokens depend on: the data, the small files of the model's folder, the job's
keys that select fields of a row, and the versions of the tokenizing packages. A file is used only if its header, size
and SHA-256 are right for the key; otherwise lq tokenizes the data again. You can delete the cache at any time.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from jobs.model.spec import JobSpec
from workers.data.batches import Rows, Tokens

FORMAT = 2
"""Version of the files; other versions are not read."""

MAX_AGE_S = 30 * 86400.0
"""Files that no run used for this long are deleted."""

MAX_BYTES = 1 << 29
"""Size of all files; the least recently used ones are deleted first."""

_MAGIC = b"lq tokens\n"
_LONGEST_HEADER = 1 << 16
_SUFFIX = ".tokens"
_ABANDONED_S = 3600.0
"""A partial file of this age belongs to a trainer that was killed."""

_WEIGHTS = frozenset({".safetensors", ".bin", ".gguf", ".npz", ".pt", ".pth", ".onnx", ".h5", ".msgpack"})
_HASHED_BYTES = 64 << 20
"""Size up to which other files of a model's folder are hashed; larger ones count by size and time."""

_VERSIONS = ("mlx-lm", "transformers", "tokenizers", "jinja2")

Key = dict[str, Any]
"""Everything the tokens of a data file depend on, as JSON."""


def key_of(spec: JobSpec, data_sha256: str, tokenizer_sha256: str) -> Key:
    """Return what the tokens of a data file depend on; `tokenizer_sha256` is the `folder_sha256` of the model."""
    names = ("mask_prompt", "prompt_feature", "completion_feature", "chat_feature", "text_feature")
    return {
        "format": FORMAT,
        "data": data_sha256,
        "tokenizer": tokenizer_sha256,
        "keys": {name: getattr(spec, name) for name in names},
        "objective": [*spec.lq.objective.keys, spec.lq.objective.sequences],  # equal for objectives with the same rows
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONS},
    }


def folder_sha256(folder: Path) -> str:
    """Return a hash of all files of a model's folder except its weights: tokenizer, chat templates, configuration.

    Raises:
        OSError: a file cannot be read.
    """
    whole = hashlib.sha256()
    templates = folder / "additional_chat_templates"
    for path in sorted([*folder.iterdir(), *(templates.iterdir() if templates.is_dir() else ())]):
        if path.suffix in _WEIGHTS or not path.is_file():
            continue
        status = path.stat()
        if status.st_size > _HASHED_BYTES:
            content = f"{status.st_size} bytes of {status.st_mtime_ns}"
        else:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(json.dumps([str(path.relative_to(folder)), content]).encode())
    return whole.hexdigest()


class TokenCache:
    """A folder of token files, which several trainers can use at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, key: Key) -> Rows | None:
        """Return the rows that were written for this key; None if there are none, or the file is damaged."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        rows = _unpacked(content, key)
        if rows is not None:
            with suppress(OSError):
                os.utime(path)  # marks it as used
        return rows

    def write(self, key: Key, rows: Rows) -> None:
        """Write rows, and delete files beyond the limits. A failed write is ignored."""
        path = self._path(key)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        packed = _packed(key, rows)
        if len(packed) > MAX_BYTES:
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(packed)
            partial.replace(path)
            self._sweep(path)
        except OSError:
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def _path(self, key: Key) -> Path:
        return self._folder / f"{hashlib.sha256(_text(key)).hexdigest()[:32]}{_SUFFIX}"

    def _sweep(self, newest: Path) -> None:
        """Delete the least recently used files until the rest is within the limits; never the newest."""
        now = time.time()
        files = []
        for path in self._folder.iterdir():
            with suppress(OSError):  # another trainer may delete it at the same time
                status = path.stat()
                if path.name.endswith(".partial") and now - status.st_mtime > _ABANDONED_S:
                    path.unlink()
                elif path.suffix == _SUFFIX and path != newest:
                    files.append((status.st_mtime, status.st_size, path))
        total = newest.stat().st_size
        for used, size, path in sorted(files, reverse=True):
            total += size
            if total > MAX_BYTES or now - used > MAX_AGE_S:
                path.unlink(missing_ok=True)


def _text(key: Mapping[str, Any]) -> bytes:
    return json.dumps(key, sort_keys=True).encode()


def _packed(key: Key, rows: Rows) -> bytes:
    """Return the contents of a file: a magic word, the length of the header, the header, and 32-bit integers.

    The integers are the numbers of sequences, rows and labels, all lengths, all offsets, all sort keys, all labels, and
    the tokens of all sequences. The header has their SHA-256.
    """
    lengths = [len(sequence) for sequence in rows.tokens]
    numbers = [len(lengths), len(rows), len(rows.labels), *lengths, *rows.offsets, *rows.sort_keys, *rows.labels]
    body = b"".join(np.asarray(part, "<i4").tobytes() for part in (numbers, *rows.tokens))
    header = _text({"key": key, "sha256": hashlib.sha256(body).hexdigest()})
    return _MAGIC + len(header).to_bytes(4, "little") + header + body


def _unpacked(content: bytes, key: Key) -> Rows | None:
    """Return the rows of a file; None if it is damaged or has another key."""
    begin = len(_MAGIC) + 4
    size = int.from_bytes(content[len(_MAGIC) : begin], "little")
    if not content.startswith(_MAGIC) or size > _LONGEST_HEADER or len(content) < begin + size:
        return None
    try:
        header = json.loads(content[begin : begin + size])
    except ValueError:
        return None
    if not isinstance(header, dict) or header.get("key") != key:
        return None
    body = memoryview(content)[begin + size :]
    if hashlib.sha256(body).hexdigest() != header.get("sha256"):
        return None
    return _rows(np.frombuffer(body, "<i4"))


def _rows(numbers: Tokens) -> Rows:
    """Return the rows of a file as views of its integers."""
    sequences, rows, labels = numbers[:3].tolist()
    sizes = [3, sequences, sequences, rows, labels]
    *starts, begin = accumulate(sizes)
    lengths, offsets, sort_keys, marks = (
        numbers[start : start + size].tolist() for start, size in zip(starts, sizes[1:], strict=True)
    )
    ends = [begin + end for end in accumulate(lengths)]
    return Rows(
        tokens=[numbers[end - length : end] for end, length in zip(ends, lengths, strict=True)],
        offsets=offsets,
        sort_keys=tuple(sort_keys),
        width=sequences // rows if rows else 1,
        labels=tuple(map(bool, marks)),
    )
