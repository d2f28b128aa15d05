"""The data of a job, checked as its model will see it: every row of every file is rendered and tokenized at submit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.model.errors import DataInvalid, Line, located, message_of
from orchestrator.core.app import App
from orchestrator.model_files.hub_cache import folder_of

if TYPE_CHECKING:
    from configs.data_files import DataFacts
    from jobs.model.spec import JobSpec
    from workers.data.row_check import FileCheck, RowChecker, ShownRow


def check_data(app: App, spec: JobSpec, named_in: tuple[Path, Line | None] | None = None) -> DataFacts:
    """Check the data of a job; its notes say which rows are cut, which are left out, and what was not checked.

    Args:
        named_in: the job file and the line that names the data; None after the submit.

    Raises:
        DataInvalid: a file is missing, a row cannot be used, or too few rows can be trained.
        ModelMissing: the model has no usable tokenizer.
    """
    from configs import data_files

    facts = data_files.check_data(spec, named_in)
    if facts.source != "folder":
        note = f"the rows of {facts.name} are on the Hugging Face hub, so they are checked when the job starts"
        return dataclasses.replace(facts, notes=(*facts.notes, note))
    checker = row_checker(app, spec)
    notes = [checker.unchecked] if checker.unchecked is not None else []
    for name, file in facts.files.items():
        if file.rows:
            try:
                checked = checker.check(Path(file.path), file.sha256)
            except (OSError, ValueError, KeyError, TypeError) as error:  # changed since it was read
                raise DataInvalid(located(file.path, None, f"cannot be read: {message_of(error)}")) from error
            _require_learned(spec, Path(file.path), name, checked)
            notes += _notes(spec, name, checked)
    return dataclasses.replace(facts, notes=(*facts.notes, *notes))


def row_checker(app: App, spec: JobSpec) -> RowChecker:
    """Return what checks the rows of a job's data; ModelMissing if its model has no usable tokenizer."""
    from workers.data.row_check import RowChecker

    cache = app.home.lengths if app.home.path.is_dir() else None
    return RowChecker(folder_of(spec.model), spec, cache=cache)


def shown_row(app: App, spec: JobSpec, name: str, number: int) -> tuple[Path, ShownRow, str | None]:
    """Return a data file, its row `number` (from 1) as the model sees it, and what could not be tried here.

    Args:
        name: train, valid or test.

    Raises:
        DataInvalid: the row does not exist or cannot be used.
        ModelMissing: the model has no usable tokenizer.
    """
    path = Path(spec.data) / f"{name}.jsonl"
    if spec.hf_dataset is not None or not path.is_file():
        raise DataInvalid(located(path, None, "no such file, so no row of it can be shown"))
    checker = row_checker(app, spec)
    return path, checker.shown(path, number), checker.unchecked


def _require_learned(spec: JobSpec, path: Path, name: str, checked: FileCheck) -> None:
    """Refuse a training set with too few rows to learn, and a test set with none."""
    learned, rows = checked.learned, len(checked.tokens)
    least = {"train.jsonl": spec.batch_size, "test.jsonl": 1 if spec.test else 0}.get(name, 0)
    if learned < least <= rows:
        needed = f"batch_size is {spec.batch_size}" if name == "train.jsonl" else "the job file has 'test: true'"
        reasons = "; ".join(f"{len(rows):,} {fact}: {remedy}" for rows, fact, remedy in _left_out(spec, checked))
        first = min(min(rows) for rows in checked.left_out.values()) + 1
        text = (
            f"{f'only {learned}' if learned else 'none'} of {rows} rows have a token to learn, but {needed}; {reasons}"
        )
        raise DataInvalid(located(path, first, text))


def _notes(spec: JobSpec, name: str, checked: FileCheck) -> Iterator[str]:
    count = len(checked.tokens)
    for rows, fact, remedy in _left_out(spec, checked):
        first = f"the first is line {rows[0] + 1}"
        yield f"{name}: {len(rows):,} of {count:,} rows {fact}, and are left out; {first}: {remedy}"
    if name == "valid.jsonl" and not checked.learned:
        yield "no validation set: no row of valid.jsonl has a token to learn"
    left_out = {row for rows in checked.left_out.values() for row in rows}
    longer = (row for row, tokens in enumerate(checked.tokens) if tokens > spec.max_seq_length)
    cut = [row for row in longer if row not in left_out]
    if cut and checked.how == "tokenizer":
        yield (
            f"{name}: {len(cut):,} of {count:,} rows are longer than max_seq_length ({spec.max_seq_length:,} tokens) "
            f"and are cut; the first is line {cut[0] + 1}, the longest has {max(checked.tokens):,} tokens"
        )


def _left_out(spec: JobSpec, checked: FileCheck) -> Iterator[tuple[tuple[int, ...], str, str]]:
    """Yield the rows that are left out, why, and the remedy."""
    from workers.data.rendering import CUT_OFF, ENDS_IN_PROMPT, NO_START

    words = {
        ENDS_IN_PROMPT: (
            "do not end with an answer, the only part that mask_prompt learns",
            "remove their last messages, or mask_prompt",
        ),
        NO_START: ("do not show in the chat template where the answer starts", "remove mask_prompt"),
        CUT_OFF: (
            f"have no token to learn within max_seq_length ({spec.max_seq_length:,} tokens)",
            "raise max_seq_length, or shorten them",
        ),
    }
    for why, rows in checked.left_out.items():
        yield rows, *words[why]
