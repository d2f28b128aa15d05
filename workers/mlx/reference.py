"""Reference log-probabilities: those of the model that a run starts with, which DPO and KTO compare with.

They are measured once, before the first update, by the very network that is trained, so no second model is in memory:
a new adapter changes nothing yet, and with `resume_adapter_file` the reference is the model with that adapter. They are
kept in reference.json, whose hash belongs to every checkpoint; a resume reads them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from jobs.model.errors import DataInvalid
from jobs.model.events import PhaseEvent
from jobs.model.run_plan import Stage
from workers.checkpoints.publishing import sha256_of
from workers.data.batches import Rows, padded, padded_length
from workers.files.atomic import write_atomically
from workers.mlx.context import RunContext
from workers.mlx.data import TrainingData
from workers.mlx.machine import machine, versions
from workers.mlx.model import TrainedModel
from workers.mlx.objectives import log_probabilities
from workers.mlx.state import random_key, set_random_key

VERSION = 1

PHASE_EVERY_S = 60.0
"""The phase is reported again after this time, as a sign of progress."""

SETS = ("train", "valid", "test")

Sums = NDArray[np.float32]
"""The log-probability of the answer of each sequence."""


def provide(context: RunContext, model: TrainedModel, data: TrainingData, *, fresh: bool) -> None:
    """Add the reference to the rows of a run: from the job's folder, or measured now if the run starts.

    Raises:
        DataInvalid: a resume has no reference that fits its rows.
    """
    if not context.spec.lq.objective.needs_reference:
        return
    path, key = context.job_dir.reference, _key(context, data)
    known = _read(context, data, key if fresh else None)
    if known is None:
        if not fresh:
            raise DataInvalid(f"{path} does not fit the rows of this run; submit the job again")
        known = {name: _measured(context, model, getattr(data, name)) for name in SETS}
        content = {name: [float(value) for value in sums] for name, sums in known.items()}
        write_atomically(path, json.dumps({"version": VERSION, "key": key} | content))
    for name, sums in known.items():
        setattr(data, name, dataclasses.replace(getattr(data, name), reference=sums))
    data.hashes[path.name] = sha256_of(path) or ""


def estimate(context: RunContext, model: TrainedModel, data: TrainingData) -> float | None:
    """Add an estimate of the reference to the rows, for a dry run: the mean log-probability of a token of one batch.

    Returns:
        How many seconds measuring the reference of every row would take; None if the objective needs none.
    """
    if not context.spec.lq.objective.needs_reference:
        return None
    stage = context.stage
    batch = data.train.sequences(range(min(len(data.train), stage.batch_size)))
    _sums_of(model, data.train, batch, stage)  # compiles
    began = time.monotonic()
    sums = _sums_of(model, data.train, batch, stage)
    seconds = time.monotonic() - began
    tokens = _supervised(data.train, stage)
    mean = float(sums.sum()) / max(1, int(tokens[batch].sum()))
    for name in SETS:
        rows = getattr(data, name)
        sums = (mean * _supervised(rows, stage)).astype(np.float32)
        setattr(data, name, dataclasses.replace(rows, reference=sums))
    every = [padded_length(len(row), stage.max_seq_length) for name in SETS for row in getattr(data, name).tokens]
    longest = max(padded_length(len(data.train.tokens[index]), stage.max_seq_length) for index in batch)
    return seconds * sum(every) / (longest * len(batch))


def of_rows(model: TrainedModel, rows: Rows, stage: Stage) -> Rows:
    """Return rows with their reference under the present weights of the model."""
    sums = np.zeros(len(rows.tokens), np.float32)
    for batch in _batches(rows, stage):
        sums[batch] = _sums_of(model, rows, batch, stage)
    return dataclasses.replace(rows, reference=sums)


def _key(context: RunContext, data: TrainingData) -> str:
    """Return a hash of what the reference depends on, by which another attempt at the start of a run reuses it."""
    spec, objective = context.spec, context.spec.lq.objective
    settings = spec.model_dump(mode="json", exclude={"lq"})
    rows = [*objective.keys, objective.sequences, context.stage.max_seq_length]
    sizes = [sum(map(len, getattr(data, name).tokens)) for name in SETS]
    depends: list[Any] = [settings, rows, sizes, data.hashes, versions(), machine()]
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


def _read(context: RunContext, data: TrainingData, key: str | None) -> dict[str, Sums] | None:
    """Return the kept reference; None if there is none, it is damaged, or it has another key than `key`."""
    try:
        content = json.loads(context.job_dir.reference.read_text())
        if content["version"] != VERSION or key not in (None, content["key"]):
            return None
        sums = {name: np.array(content[name], np.float32) for name in SETS}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    fits = all(sums[name].shape == (len(getattr(data, name).tokens),) for name in SETS)
    return sums if fits else None


def _measured(context: RunContext, model: TrainedModel, rows: Rows) -> Sums:
    """Measure the reference without dropout and without changing the random key."""
    key = random_key()
    sums = np.zeros(len(rows.tokens), np.float32)
    reported = -PHASE_EVERY_S
    for batch in _batches(rows, context.stage):
        if time.monotonic() - reported >= PHASE_EVERY_S:
            context.events.append(PhaseEvent(phase="reference"))
            reported = time.monotonic()
        sums[batch] = _sums_of(model, rows, batch, context.stage)
        if mx.get_cache_memory() > context.spec.clear_cache_threshold:
            mx.clear_cache()
    set_random_key(key)
    return sums


def _batches(rows: Rows, stage: Stage) -> list[list[int]]:
    """Return the sequences in batches of similar length."""
    ordered = sorted(range(len(rows.tokens)), key=lambda index: len(rows.tokens[index]))
    size = stage.batch_size * rows.width
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def _sums_of(model: TrainedModel, rows: Rows, batch: list[int], stage: Stage) -> Sums:
    tokens, spans = padded(
        [rows.tokens[index] for index in batch], [rows.offsets[index] for index in batch], stage.max_seq_length
    )
    spans[:, 1] -= 1  # as in a batch of the objective
    model.network.eval()
    try:
        return np.array(log_probabilities(model.network, mx.array(tokens), mx.array(spans))[0])
    finally:
        model.network.train()


def _supervised(rows: Rows, stage: Stage) -> NDArray[np.int64]:
    """Return the number of supervised tokens of each sequence."""
    pairs = zip(rows.tokens, rows.offsets, strict=True)
    return np.array([max(0, min(len(row), stage.max_seq_length) - max(1, offset)) for row, offset in pairs], np.int64)
