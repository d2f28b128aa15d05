"""Tokenised data files, kept so that a restart, or another job on the same data, need not tokenise again. No mlx.

A file is found by what its tokens depend on: the data, the tokenizer's and model's own small files, the job's keys
that say what of a row is read, and the versions of what tokenises. It is used only when every byte of it is what was
written for that very key: header, sizes and SHA-256. Whatever is wrong with it, the data is tokenised as if there were
none. Anybody may delete all of it at any time.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import locale
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

FORMAT = 1
"""Of the files. Another one is never read."""

KEPT_S = 30 * 86400.0
"""A file that nobody used for so long goes."""

KEPT_BYTES = 1 << 29
"""Of all files together; the one unused for longest goes first."""

_MAGIC = b"lq tokens\n"
_LONGEST_HEADER = 1 << 16
_SUFFIX = ".tokens"
_ABANDONED_S = 3600.0
"""A file that is still being written after so long has lost its writer."""

_WEIGHTS = frozenset({".safetensors", ".bin", ".gguf", ".npz", ".pt", ".pth", ".onnx", ".h5", ".msgpack"})
_HASHED_BYTES = 64 << 20
"""Other files of a model's folder are read up to this size; of larger ones size and date must do."""

_VERSIONS = ("mlx-lm", "transformers", "tokenizers", "jinja2")

Key = dict[str, Any]
"""Everything the tokens of a data file depend on, as JSON has it."""


def key_of(spec: JobSpec, data_sha256: str, tokenizer_sha256: str) -> Key:
    """Return what the tokens of a data file depend on.

    Args:
        spec: whose keys say what of a row is read.
        data_sha256: of the data file.
        tokenizer_sha256: of the model's folder, as `folder_sha256` has it.
    """
    names = ("mask_prompt", "prompt_feature", "completion_feature", "chat_feature", "text_feature")
    return {
        "format": FORMAT,
        "data": data_sha256,
        "tokenizer": tokenizer_sha256,
        "keys": {name: getattr(spec, name) for name in names},
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONS},
        "encoding": locale.getencoding(),  # MLX-LM reads the data in it
    }


def folder_sha256(folder: Path) -> str:
    """Return one hash over all files of a model's folder but its weights: tokenizer, chat templates, configuration.

    Raises:
        OSError: one of them cannot be read.
    """
    whole = hashlib.sha256()
    templates = folder / "additional_chat_templates"
    for path in sorted([*folder.iterdir(), *(templates.iterdir() if templates.is_dir() else ())]):
        if path.suffix in _WEIGHTS or not path.is_file():
            continue
        about = path.stat()
        if about.st_size > _HASHED_BYTES:
            content = f"{about.st_size} bytes of {about.st_mtime_ns}"
        else:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        whole.update(json.dumps([str(path.relative_to(folder)), content]).encode())
    return whole.hexdigest()


class TokenCache:
    """One folder of token files; several trainers may use it at once."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; it is made when the first file is written."""
        self._folder = folder

    def read(self, key: Key) -> Rows | None:
        """Return the rows that were written for this key; None where there are none, or they are not whole."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        rows = _unpacked(content, key)
        if rows is not None:
            with suppress(OSError):
                os.utime(path)  # used now
        return rows

    def write(self, key: Key, rows: Rows) -> None:
        """Keep rows, and let go what is too old or too much. What cannot be written is not kept."""
        path = self._path(key)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        packed = _packed(key, rows)
        if len(packed) > KEPT_BYTES:
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
        """Delete what was unused for longest, until the rest is within bounds; never the newest file."""
        now = time.time()
        found = []
        for path in self._folder.iterdir():
            with suppress(OSError):  # another trainer sweeps too
                about = path.stat()
                if path.name.endswith(".partial") and now - about.st_mtime > _ABANDONED_S:
                    path.unlink()
                elif path.suffix == _SUFFIX and path != newest:
                    found.append((about.st_mtime, about.st_size, path))
        total = newest.stat().st_size
        for used, size, path in sorted(found, reverse=True):
            total += size
            if total > KEPT_BYTES or now - used > KEPT_S:
                path.unlink(missing_ok=True)


def _text(key: Mapping[str, Any]) -> bytes:
    return json.dumps(key, sort_keys=True).encode()


def _packed(key: Key, rows: Rows) -> bytes:
    """Return a file's content: magic word, header and its length; then numbers, of which the header has the SHA-256:
    how many rows, the length of each, the offset of each, the sort key of each, the tokens of each.
    """
    lengths = [len(row) for row in rows.tokens]
    numbers = [len(lengths), *lengths, *rows.offsets, *rows.sort_keys]
    body = b"".join(np.asarray(each, "<i4").tobytes() for each in (numbers, *rows.tokens))
    header = _text({"key": key, "sha256": hashlib.sha256(body).hexdigest()})
    return _MAGIC + len(header).to_bytes(4, "little") + header + body


def _unpacked(content: bytes, key: Key) -> Rows | None:
    """Return the rows of a file; None unless it is whole and was written for this key."""
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
    """Return the rows in the numbers of a file; they are views of them, four bytes a token."""
    count = int(numbers[0])
    lengths, offsets, sort_keys = numbers[1 : 1 + 3 * count].reshape(3, count).tolist()
    ends = [1 + 3 * count + end for end in accumulate(lengths)]
    return Rows(
        tokens=[numbers[end - length : end] for end, length in zip(ends, lengths, strict=True)],
        offsets=offsets,
        sort_keys=tuple(sort_keys),
    )
