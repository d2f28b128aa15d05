"""MLX-LM's own data sets tokenise, many texts at once: what they ask for is noted, encoded, and handed to them.

Each row goes through MLX-LM's `process` twice. The first time every text it wants encoded is noted; then a fast
tokenizer encodes hundreds of them in one call, on every core and without one Python call a row; the second time the
row gets its tokens. What a row is made of stays MLX-LM's business alone. No mlx.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jobs.model.spec import JobSpec
from workers.checkpoints.publishing import sha256_of
from workers.data.batches import Rows, Tokens
from workers.data.token_cache import Key, TokenCache, folder_sha256, key_of
from workers.files.job_dir import JobDir

SETS = ("train", "valid", "test")

AT_ONCE = 256
"""Rows whose texts are encoded in one call: the encodings of a whole data set would take far more than its tokens."""

_PLACEHOLDER = -1
"""Stands for the tokens of a noted text; `process` looks at the last token of a text row."""


class DataSet(Protocol):
    """What MLX-LM's data sets have in common."""

    def __len__(self) -> int:
        """Return its rows."""

    def __getitem__(self, place: int) -> Any:
        """Return a row as it stands in the file."""

    def process(self, row: Any) -> tuple[list[int], int]:
        """Return a row's tokens and where what is learned begins."""


class Encoder:
    """Stands for a tokenizer towards MLX-LM's data sets; whatever else they ask of it is answered by the tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        """Wrap a tokenizer as mlx_lm.load returns it."""
        self._tokenizer = tokenizer
        self._noted: list[tuple[str, bool]] | None = None  # texts, and whether special tokens are added; None: not now
        self._encoded: deque[list[int]] = deque()

    def __getattr__(self, name: str) -> Any:
        """Ask the tokenizer."""
        return getattr(self._tokenizer, name)

    def encode(self, text: str) -> list[int]:
        """Return a text's tokens, with the special ones that begin or end a text."""
        if self._noted is not None:
            return self._note(text, special=True)
        if self._encoded:
            return self._encoded.popleft()
        found: list[int] = self._tokenizer.encode(text)
        return found

    def apply_chat_template(self, *arguments: Any, **settings: Any) -> list[int]:
        """Return the tokens of messages in the model's chat template."""
        if self._noted is not None:
            rendered = self._tokenizer.apply_chat_template(*arguments, **settings | {"tokenize": False})
            return self._note(rendered, special=False)
        if self._encoded:
            return self._encoded.popleft()
        found: list[int] = self._tokenizer.apply_chat_template(*arguments, **settings)
        return found

    def processed(self, data: DataSet, places: Sequence[int]) -> list[tuple[list[int], int]]:
        """Return what `process` makes of some rows.

        Args:
            data: a data set that was made with this encoder in the tokenizer's place.
            places: the rows.
        """
        if not getattr(self._tokenizer, "is_fast", False):
            return [data.process(data[place]) for place in places]
        self._noted = []
        try:
            for place in places:
                data.process(data[place])
            noted = self._noted
        finally:
            self._noted = None
        if all(isinstance(text, str) for text, _ in noted):
            self._encoded.extend(self._all_encoded(noted))
        try:
            found = [data.process(data[place]) for place in places]
            assert not self._encoded, "a row asked for other texts the second time"
        finally:
            self._encoded.clear()
        return found

    def _note(self, text: str, *, special: bool) -> list[int]:
        assert self._noted is not None
        self._noted.append((text, special))
        return [_PLACEHOLDER]

    def _all_encoded(self, noted: Sequence[tuple[str, bool]]) -> list[list[int]]:
        """Encode texts as `encode` and `apply_chat_template` would one by one."""
        found: list[list[int]] = [[] for _ in noted]
        for special in (False, True):
            places = [place for place, one in enumerate(noted) if one[1] is special]
            if places:
                texts = [noted[place][0] for place in places]
                tokens = self._tokenizer._tokenizer(texts, add_special_tokens=special)["input_ids"]
                for place, one in zip(places, tokens, strict=True):
                    found[place] = one
        return found


def tokenized(data: DataSet, encoder: Encoder) -> Rows:
    """Tokenise a whole data file; the order of a run depends on every length.

    Args:
        data: the data set, made with the encoder in the tokenizer's place; or a list of nothing.
        encoder: encodes for it.
    """
    tokens: list[Tokens] = []
    offsets: list[int] = []
    for start in range(0, len(data), AT_ONCE):
        rows = encoder.processed(data, range(start, min(start + AT_ONCE, len(data))))
        tokens += [np.array(row, np.int32) for row, _ in rows]
        offsets += [int(offset) for _, offset in rows]
    return Rows(
        tokens=tokens,
        offsets=offsets,
        sort_keys=tuple(len(data[place]) for place in range(len(data))),  # as CacheDataset.itemlen has it
    )


Load = Callable[[Encoder], Sequence[DataSet]]
"""Returns the data sets of SETS, made with the encoder in the tokenizer's place."""


def all_rows(spec: JobSpec, tokenizer: Any, job_dir: JobDir, load: Load) -> tuple[Rows, Rows, Rows]:
    """Return the rows of training, validation and test: those that were kept, else tokenised now and kept.

    Args:
        spec: names the data.
        tokenizer: as mlx_lm.load returns it.
        job_dir: says where tokens are kept.
        load: MLX-LM's load_dataset; not called where every file's rows were kept.

    Raises:
        ValueError, KeyError, TypeError: MLX-LM cannot use the data.
    """
    cache = _cache(tokenizer, job_dir)
    keys = _keys(spec, tokenizer) if cache is not None else {}
    rows = {name: found for name, key in keys.items() if cache and (found := cache.read(key)) is not None}
    needed = {"train", *keys, *(["test"] if spec.test else [])}
    if not needed <= rows.keys():
        encoder = Encoder(tokenizer)
        loaded = zip(SETS, load(encoder), strict=True)
        fresh = {name: tokenized(data, encoder) for name, data in loaded if name not in rows}
        if cache is not None and keys == _keys(spec, tokenizer):  # nobody wrote to the data meanwhile
            for name in keys.keys() & fresh.keys():
                cache.write(keys[name], fresh[name])
        rows |= fresh
    train, valid, test = (rows.get(name, Rows(tokens=[], offsets=[], sort_keys=())) for name in SETS)
    return train, valid, test


def _cache(tokenizer: Any, job_dir: JobDir) -> TokenCache | None:
    """Return where tokens are kept; None for nowhere.

    A chat template may put today's date into every row. Then they are the job's own, or one that goes on after
    midnight would train on other rows than it began with.
    """
    if "strftime_now" in str(tokenizer.chat_template):
        return TokenCache(job_dir.tokens)
    return TokenCache(job_dir.cache) if job_dir.cache is not None else None


def _keys(spec: JobSpec, tokenizer: Any) -> dict[str, Key]:
    """Return the key of each data file; none where not all that the tokens depend on lies in files here."""
    data, model = Path(spec.data), Path(tokenizer.name_or_path)
    if spec.hf_dataset or spec.trust_remote_code or not (data.is_dir() and model.is_dir()):
        return {}
    try:
        whose = folder_sha256(model)
    except OSError:
        return {}
    files = {name: path for name in SETS if (path := data / f"{name}.jsonl").exists()}
    hashes = {name: sha256 for name, path in files.items() if (sha256 := sha256_of(path)) is not None}
    if len(hashes) < len(files):
        return {}  # what cannot be read, MLX-LM will name
    return {name: key_of(spec, sha256, whose) for name, sha256 in hashes.items()}
