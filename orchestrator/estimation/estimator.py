"""What the formula says of a run, from the files of its model and its data; each is read once."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path

from jobs.estimates import disk as budget
from jobs.estimates.memory import ModelShape, Parts, Work, parts_of
from jobs.model.run_plan import Stage
from jobs.model.spec import JobSpec
from orchestrator.estimation import model_files
from orchestrator.estimation.model_files import ModelFiles
from workers.data.batches import BatchOrder, padded_length
from workers.data.token_lengths import TokenLengths, lengths_of

MOST_BATCHES = 400
"""Of an epoch so many batches are looked at for the tokens of an iteration."""

_KEEPS_NOTHING_NEW = ("sgd",)
"""Optimizers whose update writes no new memory of their own: MLX's SGD without momentum only holds the place for it."""


class Estimator:
    """Reads models and data, and reckons."""

    def __init__(self, cache: Path | None) -> None:
        """Read nothing yet.

        Args:
            cache: folder for the lengths of rows; None where nothing may be written.
        """
        self._cache = cache
        self._models: dict[str, ModelFiles | None] = {}
        self._shapes: dict[str, ModelShape | None] = {}
        self._lengths: dict[tuple[object, ...], TokenLengths | None] = {}

    def files(self, model: str) -> ModelFiles | None:
        """Return a model's files; None where they are not on this machine."""
        if model not in self._models:
            self._models[model] = found = model_files.read(model)
            self._shapes[model] = found.shape() if found is not None and found.tensors else None
        return self._models[model]

    def shape(self, model: str) -> ModelShape | None:
        """Return what a model's memory goes by; None where that cannot be told."""
        self.files(model)
        return self._shapes[model]

    def lengths(self, spec: JobSpec) -> TokenLengths | None:
        """Return the tokens of each training row; None where the data is not in a folder of this machine."""
        features = (spec.prompt_feature, spec.completion_feature, spec.chat_feature, spec.text_feature)
        key = (spec.data, spec.model, spec.hf_dataset is None, *features)
        if key not in self._lengths:
            self._lengths[key] = self._count(spec)
        return self._lengths[key]

    def _count(self, spec: JobSpec) -> TokenLengths | None:
        data = Path(spec.data) / "train.jsonl"
        if spec.hf_dataset is not None or not data.is_file():
            return None
        files = self.files(spec.model)
        try:
            found = lengths_of(data, files.folder if files is not None else None, spec, cache=self._cache)
        except (OSError, ValueError, KeyError, TypeError):  # changed since it was checked
            return None
        return found if found.tokens else None

    def parts(self, spec: JobSpec, stage: Stage) -> Parts | None:
        """Return where the bytes go at a run's peak; None where the model's files do not say."""
        files, shape = self.files(spec.model), self.shape(spec.model)
        if files is None or shape is None:
            return None
        arrays = None
        with suppress(ValueError, KeyError, TypeError):
            arrays = files.arrays(spec)
        if arrays is None:
            return None
        remembered = budget.need(spec, arrays, valid_rows=0).optimizer or 0
        layers = shape.layers if spec.num_layers <= 0 else min(spec.num_layers, shape.layers)
        work = Work(
            fine_tune_type=spec.fine_tune_type,
            trained_layers=layers,
            rank=spec.lora_parameters.rank,
            dropout=spec.lora_parameters.dropout > 0,
            trained_bytes=sum(array.nbytes for array in arrays),
            optimizer_bytes=remembered,
            renewed_bytes=0 if spec.optimizer in _KEEPS_NOTHING_NEW else remembered,
            rows=stage.batch_size,
            tokens=self.longest(spec, stage),
            checkpointing=stage.grad_checkpoint,
        )
        return parts_of(shape, work)

    def longest(self, spec: JobSpec, stage: Stage) -> int:
        """Return the tokens of a row of the longest batch as it enters the model; its last one is only predicted."""
        lengths = self.lengths(spec)
        return (
            padded_length(max(lengths.tokens) if lengths is not None else stage.max_seq_length, stage.max_seq_length)
            - 1
        )

    def tokens_per_iteration(self, spec: JobSpec, stage: Stage) -> float:
        """Return the tokens an iteration computes, padding included, over an epoch."""
        lengths = self.lengths(spec)
        if lengths is None or len(lengths.tokens) < spec.batch_size:
            return float(spec.batch_size * stage.max_seq_length)
        order = BatchOrder(
            lengths=lengths.tokens,
            sort_keys=(0,) * len(lengths.tokens),
            batch_size=spec.batch_size,
            seed=spec.seed,
            mode=spec.lq.batching,
        )
        batches = [order.rows(place) for place in range(min(order.batches_per_epoch, MOST_BATCHES))]
        padded = [padded_length(max(lengths.tokens[row] for row in rows), stage.max_seq_length) for rows in batches]
        return spec.batch_size * sum(padded) / len(padded)

    def cuts(self, spec: JobSpec) -> tuple[tuple[int, float], ...]:
        """Return lengths that rows could be cut to, the 99th and 95th percentile, with the share that would be cut."""
        lengths = self.lengths(spec)
        if lengths is None:
            return ()
        ordered, found = sorted(lengths.tokens), []
        for share in (0.99, 0.95):
            length = max(2, ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)])
            found.append((length, sum(one > length for one in ordered) / len(ordered)))
        return tuple(dict.fromkeys(found))
