"""The data of a job, checked row by row at submit so that training does not fail at an invalid row.

One streaming pass counts, checks (configs/data_rows.py) and hashes the rows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal

from configs.data_rows import RowFormat, format_of, row_problem
from configs.errors import error_line, one_line
from configs.paths import looks_like_path
from configs.preference_rows import PAIR
from configs.training_rules import hub_entries
from jobs.model.errors import DataInvalid, Line, located
from jobs.model.objective import Supervised
from jobs.model.spec import JobSpec
from jobs.model.text import listed

NAMES = ("train.jsonl", "valid.jsonl", "test.jsonl")

_CONVERT, _UNPACK = "convert it, one JSON object on each line, to", "unpack it to"
_DATA_SUFFIXES = {
    **dict.fromkeys((".jsonl", ".ndjson"), "rename it to"),
    **dict.fromkeys((".gz", ".zst", ".bz2", ".xz", ".zip"), _UNPACK),
    **dict.fromkeys((".json", ".parquet", ".arrow", ".csv", ".tsv"), _CONVERT),
}
"""Suffixes of data files, and what to do with one to get the file that is read."""

LONGEST_GUESS = 1 << 16
"""Bytes that are read to see which other kind of JSON a file is."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFileFacts:
    """One file of a data folder."""

    path: str  # absolute
    rows: int
    bytes: int
    sha256: str  # of the whole file, in hex
    format: str | None  # a RowFormat's name; None for an empty file


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataFacts:
    """The data set of a job. `dataclasses.asdict` of it is JSON."""

    source: Literal["folder", "hub"]  # folder, or a data set of the Hugging Face hub
    name: str  # the folder, or the name of the data set
    files: Mapping[str, DataFileFacts]  # by file name; empty for a data set of the hub
    notes: tuple[str, ...]  # one line each, for the user


def check_data(spec: JobSpec, named_in: tuple[Path, Line | None] | None = None) -> DataFacts:
    """Check the data of a job; `named_in` is the job file and the line that names the data, None after the submit.

    Raises:
        DataInvalid: a file is missing, a row is invalid, or there are too few rows.
    """
    objective = spec.lq.objective
    if not isinstance(objective, Supervised) and not Path(spec.data).exists():
        text = (
            f"data: lq.objective {objective.name} needs a folder that contains train.jsonl, not a data set of the hub"
        )
        raise DataInvalid(error_line(*named_in, text)) if named_in else _invalid(spec.data, None, text)
    if spec.hf_dataset is not None:
        return _hub_facts(", ".join(str(entry.get("path")) for _, entry in hub_entries(spec)))
    folder = Path(spec.data)
    if folder.is_dir():
        return _folder_facts(folder, spec)
    if folder.exists():
        raise _misnamed(folder, "is a file", "; name the folder that contains train.jsonl", named_in)
    if looks_like_path(spec.data):
        hint = " (a data set on the Hugging Face hub is named org/name)"
        raise _misnamed(folder.absolute(), "no such folder", hint, named_in)
    return _hub_facts(spec.data, "no such folder, and ")


def _misnamed(folder: Path, what: str, hint: str, named_in: tuple[Path, Line | None] | None) -> DataInvalid:
    if named_in is None:
        return _invalid(folder, None, f"data: {what}{hint}")
    return DataInvalid(error_line(*named_in, f"data: {what}: {folder}{hint}"))


def _hub_facts(name: str, remark: str = "") -> DataFacts:
    if importlib.util.find_spec("datasets") is None:
        text = f"data: {remark}a data set of the Hugging Face hub needs another package; run: pip install 'lq[hub]'"
        raise _invalid(name, None, text)
    return DataFacts(source="hub", name=name, files={}, notes=())


def _folder_facts(folder: Path, spec: JobSpec) -> DataFacts:
    files = {name: _scan(folder / name, spec) for name in NAMES if (folder / name).exists()}
    rows = {name: files[name].rows if name in files else 0 for name in NAMES}
    train, _, test = (folder / name for name in NAMES)
    if "train.jsonl" not in files:
        raise _invalid(train, None, f"no such file; a data folder must contain train.jsonl{_instead(folder, 'train')}")
    if not rows["train.jsonl"]:
        raise _invalid(train, None, "is empty; add rows")
    if rows["train.jsonl"] < spec.batch_size:
        few = "1 row" if rows["train.jsonl"] == 1 else f"{rows['train.jsonl']} rows"
        raise _invalid(train, None, f"{few}, but batch_size is {spec.batch_size}: add rows or lower batch_size")
    if spec.test and not rows["test.jsonl"]:
        text = "no rows, but the job file has 'test: true'; add rows or remove 'test'"
        raise _invalid(test, None, f"{text}{_instead(folder, 'test')}")
    notes = []
    if not rows["valid.jsonl"]:
        empty = ": valid.jsonl is empty" if "valid.jsonl" in files else ""
        notes.append(f"no validation set{empty}{_instead(folder, 'valid')}")
    if "test.jsonl" in files and not rows["test.jsonl"]:
        notes.append("no test set: test.jsonl is empty")
    return DataFacts(source="folder", name=str(folder), files=files, notes=tuple(notes))


def _instead(folder: Path, name: str) -> str:
    """Return a remark on files that were probably meant as `name`.jsonl; empty if there are none."""
    meant = {"valid": ("val", "eval", "dev"), "test": ("test",), "train": ("",)}[name]
    likely = [
        path.name
        for path in sorted(folder.iterdir())
        if path.name not in NAMES and path.suffix.lower() in _DATA_SUFFIXES and path.name.lower().startswith(meant)
    ]
    inside = sorted(folder.glob(f"*/{name}*")) if name == "train" else []
    if not likely and inside:
        return f"; it is in the folder {inside[0].parent}: name that one, or move its files"
    if not likely:
        return ""
    likely.sort(key=lambda other: not other.lower().startswith(name))
    remedy = _DATA_SUFFIXES[Path(likely[0]).suffix.lower()]
    return f"; the folder has {', '.join(likely[:3])}, which is not read: {remedy} {name}.jsonl"


def _scan(path: Path, spec: JobSpec) -> DataFileFacts:
    digest = hashlib.sha256()
    rows = size = 0
    row_format: RowFormat | None = None
    try:
        with path.open("rb") as file:
            for rows, line in enumerate(file, start=1):
                digest.update(line)
                size += len(line)
                row = _row(path, rows, line) if rows > 1 else _first_row(path, line, file)
                row_format = row_format or _format(path, row, spec)
                problem = row_problem(row, row_format)
                if problem is not None:
                    raise _invalid(path, rows, problem)
    except OSError as error:
        raise _invalid(path, None, f"cannot be read: {error.strerror}") from error
    name = None if row_format is None else row_format.name
    return DataFileFacts(path=str(path), rows=rows, bytes=size, sha256=digest.hexdigest(), format=name)


def _first_row(path: Path, line: bytes, file: BinaryIO) -> dict[str, Any]:
    """Return the first row, or say what another kind of file this is."""
    kinds = {
        b"\x1f\x8b": "is compressed with gzip; unpack it",
        b"PAR1": "is a Parquet file; convert it to one JSON object per line",
        b"PK\x03\x04": "is a ZIP archive; unpack it",
        b"version https://git-lfs": "is a Git LFS pointer, not the data; run: git lfs pull",
    }
    for begin, text in kinds.items():
        if line.startswith(begin):
            raise _invalid(path, 1, text)
    start = line.strip()
    with suppress(ValueError, RecursionError):
        if isinstance(json.loads(start), dict):
            return _row(path, 1, line)
    needed = "a row is one JSON object on one line, but"
    whole = start + b"\n" + file.read(LONGEST_GUESS)
    if start[:1] == b"[" and b"{" in whole:
        raise _invalid(path, 1, f"{needed} this file is a JSON array; convert it: jq -c '.[]' old.json > {path.name}")
    with suppress(ValueError, RecursionError):
        if isinstance(json.JSONDecoder().raw_decode(whole.decode(errors="ignore"))[0], dict):
            raise _invalid(path, 1, f"{needed} this one has several lines; convert: jq -c . old.json > {path.name}")
    return _row(path, 1, line)


def _row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode())
        if rb"\ud" in line or rb"\uD" in line:
            json.dumps(row, ensure_ascii=False).encode()  # a lone surrogate, which no tokenizer accepts
    except UnicodeError as error:
        raise _invalid(path, number, "not UTF-8 text; convert the file to UTF-8") from error
    except json.JSONDecodeError as error:
        raise _invalid(path, number, _not_json(line, error)) from error
    except (ValueError, RecursionError) as error:
        raise _invalid(path, number, "not JSON that Python can read; remove the row") from error
    if not isinstance(row, dict):
        raise _invalid(path, number, 'must be a JSON object, {"key": value}')
    return row


def _not_json(line: bytes, error: json.JSONDecodeError) -> str:
    if not line.strip():
        return "blank line; remove it"
    if line.startswith(b"\xef\xbb\xbf"):
        return "starts with a byte order mark; save the file as UTF-8 without it"
    if line.rstrip().endswith(b"},"):
        return "ends with a comma; a row is one JSON object on one line, without a comma between rows"
    return f"not JSON: {error.msg.removesuffix(' at')} in column {error.colno}"


def _format(path: Path, first: dict[str, Any], spec: JobSpec) -> RowFormat:
    row_format = format_of(first, spec)
    objective = spec.lq.objective
    if row_format is None and not isinstance(objective, Supervised):
        needed = listed((f"'{key}'" for key in ("prompt", *objective.keys)), "and")
        raise _invalid(path, 1, f"unknown format; a row for lq.objective {objective.name} must have {needed}")
    if row_format is None and all(key in first for key in PAIR):
        raise _invalid(path, 1, "rows with 'chosen' and 'rejected' need lq.objective, such as dpo")
    if row_format is None:
        pair = f"'{spec.prompt_feature}' and '{spec.completion_feature}'"
        keys = f"{pair}, '{spec.chat_feature}', or '{spec.text_feature}'"
        raise _invalid(path, 1, f"unknown format; a row must have {keys}")
    if row_format.name == "text" and spec.mask_prompt:
        raise _invalid(path, 1, "text rows have no prompt to mask; remove 'mask_prompt' or use prompt and completion")
    return row_format


def _invalid(path: Path | str, line: int | None, text: str) -> DataInvalid:
    return DataInvalid(one_line(located(path, line, text)))
