"""The data sets of a run: rows of tokens, the batch order of each stage, and batches as MLX arrays."""

from __future__ import annotations

import statistics
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from mlx_lm.tokenizer_utils import NewlineTokenizer
from mlx_lm.tuner.datasets import (
    ChatDataset,
    CompletionsDataset,
    ConcatenatedDataset,
    TextDataset,
    load_dataset,
)

from configs.data_rows import RowFormat
from jobs.model.errors import DataInvalid
from jobs.model.events import WarningEvent
from jobs.model.job_dir import JobDir
from jobs.model.run_plan import Stage
from jobs.model.spec import JobSpec
from workers.checkpoints.mlx_config import mlx_config
from workers.checkpoints.publishing import sha256_of
from workers.data.batches import BatchOrder, Rows, orders
from workers.data.dataset_facts import supervised
from workers.data.rendering import Messages
from workers.data.tokenizing import SETS, RowSet, TextTools, file_rows, folder_rows, joined, rows_of
from workers.mlx.child import named_as
from workers.mlx.context import RunContext


class TrainingData:
    """The training, validation and test rows of a run, and the order in which it trains."""

    def __init__(self, context: RunContext, rows: Sequence[Rows], hashes: dict[str, str]) -> None:
        """Take tokenized rows; `load` tokenizes them.

        Raises:
            DataInvalid: too few rows can be trained.
        """
        self._context, self._spec = context, context.spec
        limit = context.stage.max_seq_length
        self.train, valid, test = rows
        # a row with nothing to learn has no loss: 0/0
        self.valid, self.test = (rows.only(rows.supervised(limit)) for rows in (valid, test))
        self.hashes = hashes  # of the files, when they were read
        train = self.train
        if len(train) < self._spec.batch_size:
            raise DataInvalid(
                f"the training set has {len(train)} rows, but batch_size is {self._spec.batch_size}: "
                "add rows or lower batch_size"
            )
        first = BatchOrder(
            lengths=train.lengths,
            sort_keys=train.sort_keys,
            batch_size=self._spec.batch_size,
            seed=self._spec.seed,
            mode=self._spec.lq.batching,
        )
        self.orders = orders(context.run_plan, first, self._usable)  # of each stage

    @property
    def order(self) -> BatchOrder:
        """The order of the present stage."""
        return self.orders[self._context.stage_index]

    @property
    def tokens_per_batch(self) -> float:
        """The expected supervised tokens of a batch in the present stage, the same in every epoch of it."""
        limit = self._context.stage.max_seq_length
        learned = supervised(self.train, limit)
        return self._spec.batch_size * statistics.fmean(learned[row] for row in self.order.pool)

    def _usable(self, stage: Stage) -> tuple[int, ...] | None:
        """Return the rows that may be trained on a stage; None for all."""
        quarantined = set(stage.quarantined)
        rows = tuple(row for row in self.train.supervised(stage.max_seq_length) if row not in quarantined)
        if len(rows) < self._spec.batch_size:
            raise DataInvalid(
                f"only {len(rows)} training rows have a token to learn, but batch_size is {self._spec.batch_size}: "
                "add rows, lower batch_size, or raise max_seq_length"
            )
        return None if len(rows) == len(self.train) else rows

    def examples(self, rows: Rows, batches: int) -> int:
        """Return the number of rows in this many batches of the job file; -1 for all batches."""
        return len(rows) if batches < 0 else min(len(rows), batches * self._spec.batch_size)


def load(context: RunContext, tokenizer: Any) -> TrainingData:
    """Tokenize the data sets, or take their tokens from the cache.

    Raises:
        DataInvalid: they cannot be used.
    """
    hashes = data_hashes(context.spec)
    sets = _rows(context.spec, context.stage, tokenizer, context.job_dir)
    _warn_about_rows(context, *sets)
    return TrainingData(context, sets, hashes)


def load_test_rows(spec: JobSpec, stage: Stage, tokenizer: Any) -> Rows:
    """Tokenize the test set alone, without the rows of which nothing is measured; DataInvalid if it is unusable."""
    tools = text_tools(tokenizer)
    with named_as(DataInvalid, f"the data {spec.data} cannot be used"):
        if Path(spec.data).is_dir() and spec.hf_dataset is None:
            rows = file_rows(Path(spec.data) / "test.jsonl", spec, tools)
        else:
            only_test = {"train": False, "test": True}
            (rows,) = _hub_rows(spec.model_copy(update=only_test), stage, tools, names=("test",))
    return rows.only(rows.supervised(stage.max_seq_length))


def _rows(spec: JobSpec, stage: Stage, tokenizer: Any, job_dir: JobDir) -> Sequence[Rows]:
    """Return the rows of training, validation and test."""
    tools = text_tools(tokenizer)
    with named_as(DataInvalid, f"the data {spec.data} cannot be used"):  # a data set can be code that raises anything
        if spec.hf_dataset is None and Path(spec.data).is_dir():
            sets = folder_rows(spec, tools, job_dir)
        else:
            sets = _hub_rows(spec, stage, tools, names=SETS)
    if spec.test and not len(sets[2]):
        raise DataInvalid(f"the data {spec.data} has no test rows, but the job file has 'test: true'")
    return sets


def _hub_rows(spec: JobSpec, stage: Stage, tools: TextTools, *, names: Sequence[str]) -> list[Rows]:
    """Tokenize data sets of the hub: MLX-LM loads them."""
    settings = types.SimpleNamespace(**mlx_config(spec, stage))
    loaded = dict(zip(SETS, load_dataset(settings, cast("Any", None)), strict=True))
    parts = {name: row_sets(name, loaded[name]) for name in names}
    return [joined([rows_of(part, tools, mask_prompt=spec.mask_prompt) for part in parts[name]]) for name in names]


def row_sets(name: str, data: Any, more_keys: int = 0) -> list[RowSet]:
    """Return the rows of one of MLX-LM's data sets with their format; several if it is a concatenation."""
    if isinstance(data, ConcatenatedDataset):
        return [row_set for part in data._data for row_set in row_sets(name, part, more_keys=1)]
    if isinstance(data, CompletionsDataset):
        row_format = RowFormat(name="completions", keys=(data.prompt_key, data.completion_key))
    elif isinstance(data, ChatDataset):
        row_format = RowFormat(name="chat", keys=(data.chat_key,))
    elif isinstance(data, TextDataset):
        row_format = RowFormat(name="text", keys=(data.text_key,))
    else:
        return []  # MLX-LM's empty list for a set that is not there
    return [RowSet(name=f"{name} set", row_format=row_format, rows=cast("Any", data), more_keys=more_keys)]


def text_tools(tokenizer: Any) -> TextTools:
    """Return the tokenizer and the chat template that MLX-LM loaded."""

    def render(messages: Messages, tools: Any, *, add_generation_prompt: bool) -> str:
        asks = {"add_generation_prompt": True} if add_generation_prompt else {}
        return cast("str", tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, **asks))

    def encode(texts: Sequence[str], *, special: bool) -> list[list[int]]:
        own = isinstance(tokenizer._tokenizer, NewlineTokenizer)  # its encode() replaces line ends first
        if not texts:
            return []
        if tokenizer.is_fast and not (own and special):
            return cast("list[list[int]]", tokenizer._tokenizer(list(texts), add_special_tokens=special)["input_ids"])
        return [tokenizer.encode(text, add_special_tokens=special) for text in texts]

    return TextTools(
        folder=Path(tokenizer.name_or_path),
        template=str(tokenizer.chat_template),
        render=render if tokenizer.has_chat_template else None,
        encode=encode,
        end=tokenizer.eos_token_id,
    )


def _warn_about_rows(context: RunContext, *sets: Rows) -> None:
    """Report training rows that are cut, and rows of any set that are left out because nothing of them is learned."""
    limit = context.stage.max_seq_length
    cut = sum(length > limit for length in sets[0].lengths)
    if cut:
        text = f"{cut} of {len(sets[0])} training rows are longer than {limit} tokens and are cut"
        context.events.append(WarningEvent(code="truncated", text=text, data={"rows": cut, "max_seq_length": limit}))
    for name, words, rows in zip(SETS, ("training", "validation", "test"), sets, strict=True):
        supervised = set(rows.supervised(limit))
        without = [row for row in range(len(rows)) if row not in supervised]
        if without:
            text = (
                f"{len(without)} of {len(rows)} {words} rows have no token to learn and are left out; "
                f"the first is {line_of(context.spec, without[0], name)}"
            )
            data = {"rows": len(without), "set": name}
            context.events.append(WarningEvent(code="unsupervised", text=text, data=data))


def line_of(spec: JobSpec, row: int, name: str = "train") -> str:
    """Return the file and line of a row."""
    return f"{name}.jsonl:{row + 1}" if Path(spec.data).is_dir() else f"{name} row {row + 1}"


def data_hashes(spec: JobSpec) -> dict[str, str]:
    """Return the sha256 of train.jsonl and valid.jsonl by file name, and of test.jsonl if a reference holds its rows.

    Empty if the data comes from the hub.
    """
    folder = Path(spec.data)
    names = ("train", "valid", "test") if spec.lq.objective.needs_reference else ("train", "valid")
    files = [folder / f"{name}.jsonl" for name in names] if folder.is_dir() else []
    return {path.name: sha256 for path in files if (sha256 := sha256_of(path)) is not None}


def reference_hash(spec: JobSpec, job_dir: JobDir) -> dict[str, str]:
    """Return the sha256 of the job's reference.json by file name; empty if there is none, or it is not needed."""
    sha256 = sha256_of(job_dir.reference) if spec.lq.objective.needs_reference else None
    return {} if sha256 is None else {job_dir.reference.name: sha256}
