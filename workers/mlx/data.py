"""The data sets of a run: rows of tokens, the batch order of each stage, and batches as MLX arrays."""

from __future__ import annotations

import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from mlx_lm.tuner.datasets import load_dataset

from jobs.model.errors import DataInvalid, message_of
from jobs.model.events import WarningEvent
from jobs.model.job_dir import JobDir
from jobs.model.objective import Supervised
from jobs.model.run_plan import Stage
from jobs.model.spec import JobSpec
from workers.checkpoints.mlx_config import mlx_config
from workers.checkpoints.publishing import sha256_of
from workers.data.answers import answer_sets
from workers.data.batches import BatchOrder, Rows, orders
from workers.data.tokenizing import SETS, DataSet, Encoder, all_rows, tokenized
from workers.mlx.context import RunContext


class TrainingData:
    """The training, validation and test rows of a run, and the order in which it trains."""

    def __init__(self, context: RunContext, rows: tuple[Rows, Rows, Rows], hashes: dict[str, str]) -> None:
        """Take tokenized rows; `load` tokenizes them.

        Raises:
            DataInvalid: too few rows can be trained.
        """
        self._context, self._spec = context, context.spec
        self.train, self.valid, self.test = rows
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
    spec, stage = context.spec, context.stage
    hashes = data_hashes(spec)
    try:
        rows = all_rows(spec, tokenizer, context.job_dir, lambda encoder: _data_sets(spec, stage, encoder))
    except (ValueError, KeyError, TypeError) as error:
        raise _unusable(spec, error) from error
    _warn_about_rows(context, rows[0])
    return TrainingData(context, rows, hashes)


def load_test_rows(spec: JobSpec, stage: Stage, tokenizer: Any) -> Rows:
    """Tokenize the test set alone.

    Raises:
        DataInvalid: it cannot be used.
    """
    encoder = Encoder(tokenizer)
    try:
        data = _data_sets(spec, stage, encoder, train=False, test=True)[-1]
        return tokenized(data, encoder)
    except (ValueError, KeyError, TypeError) as error:
        raise _unusable(spec, error) from error


def _data_sets(spec: JobSpec, stage: Stage, encoder: Encoder, **changes: bool) -> Sequence[DataSet]:
    """Return the data sets of SETS: those of MLX-LM, or those of a preference objective."""
    objective = spec.lq.objective
    if not isinstance(objective, Supervised):
        return answer_sets(Path(spec.data), encoder, objective, SETS)
    settings = types.SimpleNamespace(**mlx_config(spec, stage) | changes)
    return cast("Sequence[DataSet]", load_dataset(settings, cast("Any", encoder)))


def _unusable(spec: JobSpec, error: Exception) -> DataInvalid:
    return DataInvalid(f"the data {spec.data} cannot be used: {message_of(error)}")


def _warn_about_rows(context: RunContext, train: Rows) -> None:
    """Report training rows that are cut, or left out because nothing of them is learned."""
    limit, count = context.stage.max_seq_length, len(train)
    cut = sum(length > limit for length in train.lengths)
    if cut:
        text = f"{cut} of {count} training rows are longer than {limit} tokens and are cut"
        context.events.append(WarningEvent(code="truncated", text=text, data={"rows": cut, "max_seq_length": limit}))
    supervised = set(train.supervised(limit))
    without = [row for row in range(count) if row not in supervised]
    if without:
        text = (
            f"{len(without)} of {count} training rows have no token to learn and are left out; "
            f"the first is {line_of(context.spec, without[0])}"
        )
        context.events.append(WarningEvent(code="unsupervised", text=text, data={"rows": len(without)}))


def line_of(spec: JobSpec, row: int) -> str:
    """Return the file and line of a training row."""
    return f"train.jsonl:{row + 1}" if Path(spec.data).is_dir() else f"training row {row + 1}"


def data_hashes(spec: JobSpec) -> dict[str, str]:
    """Return the sha256 of train.jsonl and valid.jsonl by file name; empty if the data comes from the hub."""
    folder = Path(spec.data)
    files = [folder / f"{name}.jsonl" for name in ("train", "valid")] if folder.is_dir() else []
    return {path.name: sha256 for path in files if (sha256 := sha256_of(path)) is not None}


def reference_hash(spec: JobSpec, job_dir: JobDir) -> dict[str, str]:
    """Return the sha256 of the job's reference.json by file name; empty if there is none, or it is not needed."""
    sha256 = sha256_of(job_dir.reference) if spec.lq.objective.needs_reference else None
    return {} if sha256 is None else {job_dir.reference.name: sha256}
