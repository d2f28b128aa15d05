"""The tokens of a run's data sets, from the token cache or tokenized now, hundreds of rows in one call. No mlx."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from configs.data_rows import RowFormat, format_of, row_problem
from jobs.model.errors import DataInvalid, located
from jobs.model.job_dir import JobDir
from jobs.model.objective import Kto, Preference, Supervised
from jobs.model.spec import JobSpec
from workers.checkpoints.publishing import sha256_of
from workers.data import answers
from workers.data.batches import Rows, Tokens
from workers.data.rendering import Encode, Render, Renderer, RowUnusable, tokenized
from workers.data.token_cache import Key, TokenCache, folder_sha256, key_of

SETS = ("train", "valid", "test")

AT_ONCE = 256
"""Rows that are encoded in one call: the encodings of a whole data set take far more memory than its tokens."""

NO_ROWS = Rows(tokens=[], offsets=[], sort_keys=())


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTools:
    """The trainer's tokenizer and chat template."""

    folder: Path  # of the model
    template: str  # source of the chat template
    render: Render | None  # None without a chat template
    encode: Encode
    end: int | None  # the token that ends a text


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowSet:
    """Rows of one format, as a file or a data set of the hub has them."""

    name: str  # the file, for messages
    row_format: RowFormat
    rows: Iterable[Mapping[str, Any]]
    width: int = 1  # sequences of a row in the file
    more_keys: int = 0  # keys that MLX-LM adds to a row; it sorts rows by their number of keys


def rows_of(row_set: RowSet, tools: TextTools, *, mask_prompt: bool) -> Rows:
    """Tokenize rows.

    Raises:
        DataInvalid: a row cannot be used.
    """
    renderer = Renderer(row_set.row_format, tools.render, mask_prompt=mask_prompt)
    tokens: list[Tokens] = []
    offsets: list[int] = []
    sort_keys: list[int] = []
    rows = iter(row_set.rows)
    while batch := list(islice(rows, AT_ONCE)):
        rendered = []
        for number, row in enumerate(batch, start=len(tokens) + 1):
            try:
                rendered.append(renderer(row))
            except RowUnusable as error:
                line = (number - 1) // row_set.width + 1
                raise DataInvalid(located(row_set.name, line, str(error))) from error
            sort_keys.append(len(row) + row_set.more_keys)  # as MLX-LM's CacheDataset.itemlen
        for row_tokens, learned in tokenized(rendered, tools.encode, tools.end):
            tokens.append(np.array(row_tokens, np.int32))
            offsets.append(learned[0][0] if learned else len(row_tokens))
    return Rows(tokens=tokens, offsets=offsets, sort_keys=tuple(sort_keys))


def joined(parts: Sequence[Rows]) -> Rows:
    """Return the rows of several data sets as one."""
    return Rows(
        tokens=[row for part in parts for row in part.tokens],
        offsets=[offset for part in parts for offset in part.offsets],
        sort_keys=tuple(key for part in parts for key in part.sort_keys),
    )


def file_rows(path: Path, spec: JobSpec, tools: TextTools) -> Rows:
    """Tokenize a file of a data folder; a missing or empty one has no rows.

    Raises:
        DataInvalid: the file or a row cannot be used.
    """
    try:
        rows = [json.loads(line) for line in path.read_bytes().split(b"\n") if line] if path.exists() else []
    except (OSError, ValueError) as error:
        raise DataInvalid(located(path, None, f"cannot be read: {error}")) from error
    row_format = format_of(rows[0], spec) if rows else None
    if row_format is None:
        if rows:
            raise DataInvalid(located(path, 1, "unknown format"))
        return NO_ROWS
    if not isinstance(spec.lq.objective, Supervised):
        return _answers(path, row_format, rows, spec.lq.objective, tools)
    return rows_of(RowSet(name=str(path), row_format=row_format, rows=rows), tools, mask_prompt=spec.mask_prompt)


def _answers(
    path: Path, row_format: RowFormat, rows: list[dict[str, Any]], objective: Preference, tools: TextTools
) -> Rows:
    """Tokenize rows of a preference objective, after checking them again: the file may have changed since submit."""
    for number, row in enumerate(rows, start=1):
        problem = row_problem(row, row_format)
        if problem is not None:
            raise DataInvalid(located(path, number, problem))
    width, sequences = objective.sequences, answers.sequences(rows, objective)
    row_set = RowSet(name=str(path), row_format=answers.FORMAT, rows=sequences, width=width)
    labels = tuple(row["label"] for row in rows) if isinstance(objective, Kto) else ()
    plain = dataclasses.replace(rows_of(row_set, tools, mask_prompt=True), width=width, labels=labels)
    return dataclasses.replace(plain, sort_keys=plain.lengths)


def folder_rows(spec: JobSpec, tools: TextTools, job_dir: JobDir) -> list[Rows]:
    """Return the rows of training, validation and test of a data folder, from the token cache or tokenized now.

    Raises:
        DataInvalid: the data cannot be used.
    """
    cache = _cache(tools.template, job_dir)
    keys = _keys(spec, tools) if cache is not None else {}
    rows = {name: cached for name, key in keys.items() if cache and (cached := cache.read(key)) is not None}
    fresh = {name: file_rows(Path(spec.data) / f"{name}.jsonl", spec, tools) for name in SETS if name not in rows}
    if cache is not None and fresh and keys == _keys(spec, tools):  # the data did not change meanwhile
        for name in keys.keys() & fresh.keys():
            cache.write(keys[name], fresh[name])
    return [(rows | fresh)[name] for name in SETS]


def _cache(template: str, job_dir: JobDir) -> TokenCache | None:
    """Return the token cache; None if tokens are not kept.

    A chat template may put today's date into every row. Then the job has a cache of its own, because a resume after
    midnight must train the rows that the job started with.
    """
    if "strftime_now" in template:
        return TokenCache(job_dir.tokens)
    return TokenCache(job_dir.cache) if job_dir.cache is not None else None


def _keys(spec: JobSpec, tools: TextTools) -> dict[str, Key]:
    """Return the key of each data file; none if the tokens depend on anything but local files."""
    if spec.trust_remote_code or not tools.folder.is_dir():
        return {}
    try:
        model_sha256 = folder_sha256(tools.folder)
    except OSError:
        return {}
    hashes = {name: sha256_of(Path(spec.data) / f"{name}.jsonl") for name in SETS}
    return {name: key_of(spec, sha256, model_sha256) for name, sha256 in hashes.items() if sha256 is not None}
