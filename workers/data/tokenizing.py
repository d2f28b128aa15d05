"""Tokenizes rows through MLX-LM's own data sets, many texts in one call. No mlx.

Each row goes through MLX-LM's `process` twice. The first time, the texts to encode are collected; a fast tokenizer then
encodes hundreds of them in one call, on every core; the second time, the row gets its tokens. MLX-LM alone decides what
a row consists of.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jobs.model.job_dir import JobDir
from jobs.model.spec import JobSpec
from workers.checkpoints.publishing import sha256_of
from workers.data.answers import Answers
from workers.data.batches import Rows, Tokens
from workers.data.token_cache import Key, TokenCache, folder_sha256, key_of

SETS = ("train", "valid", "test")

AT_ONCE = 256
"""Rows whose texts are encoded in one call: the encodings of a whole data set take far more memory than its tokens."""

_PLACEHOLDER = -1
"""Stands for the tokens of a collected text; `process` looks at the last token of a text row."""


class DataSet(Protocol):
    """The interface of MLX-LM's data sets."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def __getitem__(self, index: int) -> Any:
        """Return a row as the file has it."""

    def process(self, row: Any) -> tuple[list[int], int]:
        """Return a row's tokens and the index of the first supervised one."""


class Encoder:
    """Replaces a tokenizer in MLX-LM's data sets; it passes everything but encoding on to the tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._collected: list[tuple[str, bool]] | None = None  # texts, and whether to add special tokens
        self._encoded: deque[list[int]] = deque()

    def __getattr__(self, name: str) -> Any:
        """Ask the tokenizer."""
        return getattr(self._tokenizer, name)

    def encode(self, text: str) -> list[int]:
        """Return a text's tokens, with the special ones that start or end a text."""
        if self._collected is not None:
            return self._collect(text, special=True)
        if self._encoded:
            return self._encoded.popleft()
        tokens: list[int] = self._tokenizer.encode(text)
        return tokens

    def apply_chat_template(self, *arguments: Any, **settings: Any) -> list[int]:
        """Return the tokens of messages in the model's chat template."""
        if self._collected is not None:
            rendered = self._tokenizer.apply_chat_template(*arguments, **settings | {"tokenize": False})
            return self._collect(rendered, special=False)
        if self._encoded:
            return self._encoded.popleft()
        tokens: list[int] = self._tokenizer.apply_chat_template(*arguments, **settings)
        return tokens

    def processed(self, data: DataSet, indices: Sequence[int]) -> list[tuple[list[int], int]]:
        """Return what `process` makes of some rows of a data set that was created with this encoder."""
        if not getattr(self._tokenizer, "is_fast", False):
            return [data.process(data[index]) for index in indices]
        self._collected = []
        try:
            for index in indices:
                data.process(data[index])
            collected = self._collected
        finally:
            self._collected = None
        if all(isinstance(text, str) for text, _ in collected):
            self._encoded.extend(self._encode_all(collected))
        try:
            rows = [data.process(data[index]) for index in indices]
            assert not self._encoded, "a row asked for other texts the second time"
        finally:
            self._encoded.clear()
        return rows

    def _collect(self, text: str, *, special: bool) -> list[int]:
        assert self._collected is not None
        self._collected.append((text, special))
        return [_PLACEHOLDER]

    def _encode_all(self, collected: Sequence[tuple[str, bool]]) -> list[list[int]]:
        """Encode texts as `encode` and `apply_chat_template` would one by one."""
        encoded: list[list[int]] = [[] for _ in collected]
        for special in (False, True):
            indices = [index for index, text in enumerate(collected) if text[1] is special]
            if indices:
                texts = [collected[index][0] for index in indices]
                tokens = self._tokenizer._tokenizer(texts, add_special_tokens=special)["input_ids"]
                for index, row in zip(indices, tokens, strict=True):
                    encoded[index] = row
        return encoded


def tokenized(data: DataSet, encoder: Encoder) -> Rows:
    """Return the rows of a data set that was created with this encoder."""
    tokens: list[Tokens] = []
    offsets: list[int] = []
    for start in range(0, len(data), AT_ONCE):
        rows = encoder.processed(data, range(start, min(start + AT_ONCE, len(data))))
        tokens += [np.array(row, np.int32) for row, _ in rows]
        offsets += [int(offset) for _, offset in rows]
    sort_keys = tuple(len(data[index]) for index in range(len(data)))  # as CacheDataset.itemlen returns them
    plain = Rows(tokens=tokens, offsets=offsets, sort_keys=sort_keys)
    return data.arranged(plain) if isinstance(data, Answers) else plain


Load = Callable[[Encoder], Sequence[DataSet]]
"""Returns the data sets of SETS, created with the encoder instead of the tokenizer."""


def all_rows(spec: JobSpec, tokenizer: Any, job_dir: JobDir, load: Load) -> tuple[Rows, Rows, Rows]:
    """Return the rows of training, validation and test, from the token cache or tokenized now.

    Args:
        spec: names the data.
        tokenizer: as mlx_lm.load returns it.
        job_dir: names the folder of the token cache.
        load: MLX-LM's load_dataset; not called if the cache has every file.

    Raises:
        ValueError, KeyError, TypeError: MLX-LM cannot use the data.
    """
    cache = _cache(tokenizer, job_dir)
    keys = _keys(spec, tokenizer) if cache is not None else {}
    rows = {name: cached for name, key in keys.items() if cache and (cached := cache.read(key)) is not None}
    needed = {"train", *keys, *(["test"] if spec.test else [])}
    if not needed <= rows.keys():
        encoder = Encoder(tokenizer)
        loaded = zip(SETS, load(encoder), strict=True)
        fresh = {name: tokenized(data, encoder) for name, data in loaded if name not in rows}
        if cache is not None and keys == _keys(spec, tokenizer):  # the data did not change meanwhile
            for name in keys.keys() & fresh.keys():
                cache.write(keys[name], fresh[name])
        rows |= fresh
    train, valid, test = (rows.get(name, Rows(tokens=[], offsets=[], sort_keys=())) for name in SETS)
    return train, valid, test


def _cache(tokenizer: Any, job_dir: JobDir) -> TokenCache | None:
    """Return the token cache; None if tokens are not kept.

    A chat template may put today's date into every row. Then the job has a cache of its own, because a resume after
    midnight must train the rows that the job started with.
    """
    if "strftime_now" in str(tokenizer.chat_template):
        return TokenCache(job_dir.tokens)
    return TokenCache(job_dir.cache) if job_dir.cache is not None else None


def _keys(spec: JobSpec, tokenizer: Any) -> dict[str, Key]:
    """Return the key of each data file; none if the tokens depend on anything but local files."""
    data, model = Path(spec.data), Path(tokenizer.name_or_path)
    if spec.hf_dataset or spec.trust_remote_code or not (data.is_dir() and model.is_dir()):
        return {}
    try:
        model_sha256 = folder_sha256(model)
    except OSError:
        return {}
    files = {name: path for name in SETS if (path := data / f"{name}.jsonl").exists()}
    hashes = {name: sha256 for name, path in files.items() if (sha256 := sha256_of(path)) is not None}
    if len(hashes) < len(files):
        return {}  # MLX-LM will name the file that cannot be read
    return {name: key_of(spec, sha256, model_sha256) for name, sha256 in hashes.items()}
