"""The inputs of the memory formula, from the files of a model and its data; each file is read once."""

from __future__ import annotations

import functools
import math
from contextlib import suppress
from pathlib import Path

from jobs.estimates import disk
from jobs.estimates.estimate import MemoryParts
from jobs.estimates.memory import ModelShape, TrainingShape, parts_of
from jobs.model.errors import InvalidInput
from jobs.model.run_plan import Stage
from jobs.model.spec import JobSpec
from orchestrator.model_files import files as model_files
from workers.data.batches import BatchOrder, padded_length
from workers.data.row_check import FileCheck, RowChecker

MOST_BATCHES = 400  # the tokens of an iteration are the mean over this many batches of an epoch
_STATELESS = ("sgd",)  # optimizers whose update writes no new state: MLX's SGD without momentum


class Formula:
    """Reads models and data, and applies the formula of jobs/estimates/memory.py."""

    def __init__(self, cache: Path | None) -> None:
        """Read nothing yet; the lengths of rows are kept in `cache`, or nowhere if it is None."""
        self._cache = cache
        self._files = functools.cache(model_files.read)
        self._lengths: dict[tuple[object, ...], FileCheck | None] = {}

    def shape(self, model: str) -> ModelShape | None:
        """Return a model's shape; None if its files are absent or have no shape."""
        files = self._files(model)
        return files.shape() if files is not None and files.tensors else None

    def lengths(self, spec: JobSpec) -> FileCheck | None:
        """Return the tokens of each training row; None if the data is not in a folder of this machine."""
        features = (spec.prompt_feature, spec.completion_feature, spec.chat_feature, spec.text_feature)
        settings = (spec.mask_prompt, spec.max_seq_length, spec.lq.objective.keys)
        key = (spec.data, spec.model, spec.hf_dataset is None, *settings, *features)
        if key not in self._lengths:
            self._lengths[key] = self._counted(spec)
        return self._lengths[key]

    def _counted(self, spec: JobSpec) -> FileCheck | None:
        data = Path(spec.data) / "train.jsonl"
        if spec.hf_dataset is not None or not data.is_file():
            return None
        files = self._files(spec.model)
        try:
            folder = files.folder if files is not None else None
            lengths = RowChecker(folder, spec, cache=self._cache).check(data)
        except (InvalidInput, OSError, ValueError, KeyError, TypeError):  # changed since it was checked
            return None
        return lengths if lengths.tokens else None

    def parts(self, spec: JobSpec, stage: Stage) -> MemoryParts | None:
        """Return the bytes at a run's peak by their use; None if the model's files do not tell."""
        files, shape = self._files(spec.model), self.shape(spec.model)
        if files is None or shape is None:
            return None
        arrays = None
        with suppress(ValueError, KeyError, TypeError):
            arrays = files.arrays(spec)
        if arrays is None:
            return None
        state = disk.disk_need(spec, arrays, valid_rows=0).optimizer or 0
        training = TrainingShape(
            fine_tune_type=spec.fine_tune_type,
            trained_layers=shape.layers if spec.num_layers <= 0 else min(spec.num_layers, shape.layers),
            rank=spec.lora_parameters.rank,
            dropout=spec.lora_parameters.dropout > 0,
            trained_bytes=sum(array.nbytes for array in arrays),
            optimizer_bytes=state,
            renewed_bytes=0 if spec.optimizer in _STATELESS else state,
            rows=stage.batch_size * spec.lq.objective.sequences,
            tokens=self.longest(spec, stage),
            checkpointing=stage.grad_checkpoint,
            float_logits=bool(spec.lq.objective.keys),
        )
        return parts_of(shape, training)

    def longest(self, spec: JobSpec, stage: Stage) -> int:
        """Return the input tokens of a row of the longest batch, padded; the last token is only predicted."""
        lengths = self.lengths(spec)
        longest = max(lengths.tokens) if lengths is not None else stage.max_seq_length
        return padded_length(longest, stage.max_seq_length) - 1

    def tokens_per_iteration(self, spec: JobSpec, stage: Stage) -> float:
        """Return the mean tokens of an iteration, padding included."""
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
        batches = [order.rows(batch) for batch in range(min(order.batches_per_epoch, MOST_BATCHES))]
        padded = [padded_length(max(lengths.tokens[row] for row in rows), stage.max_seq_length) for rows in batches]
        return spec.batch_size * spec.lq.objective.sequences * sum(padded) / len(padded)

    def cuts(self, spec: JobSpec) -> tuple[tuple[int, float], ...]:
        """Return the 99th and 95th percentile of the rows' tokens, each with the share of rows that it would cut."""
        lengths = self.lengths(spec)
        if lengths is None:
            return ()
        ordered, cuts = sorted(lengths.tokens), []
        for share in (0.99, 0.95):
            length = max(2, ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)])
            cuts.append((length, sum(tokens > length for tokens in ordered) / len(ordered)))
        return tuple(dict.fromkeys(cuts))
