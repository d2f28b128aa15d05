"""The disk space of a run, estimated from the shapes of the model's tensors. Pure; loads and reads nothing.

MLX-LM 0.32 defines what is trainable in mlx_lm/tuner/utils.py (linear_to_lora_layers) and tuner/lora.py, and MLX the
state that an optimizer keeps of each array in mlx/optimizers/optimizers.py (init_single).
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from jobs.model.spec import JobSpec
from jobs.policies.rollback import most_points

TRAIN_LOG_BYTES = 8 << 20
REPORT_BYTES = 1 << 20
LINE_BYTES, LOSS_BYTES = 700, 22
"""Bytes of a line in events.jsonl, and of a loss in it."""

LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.(.+)$")
NOT_TRAINED = re.compile(r"(?:^|[._])(?:vision|visual|audio)")
"""Parts of a model that MLX-LM, which trains on text, leaves out."""

_FLOAT32 = 4
_ENTRY_BYTES = 140
"""Bytes of an array's entry in a file's header."""


class Array(NamedTuple):
    """One trained array."""

    shape: tuple[int, ...]
    itemsize: int  # bytes of an element

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.itemsize


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpaceNeed:
    """The most that a run takes on the disk at any time, in bytes."""

    adapter: int | None  # one adapter; None if the model is not known
    optimizer: int | None  # the optimizer's state; None if the model is not known
    checkpoints: int  # the most that are kept at once
    adapters: int  # kept in addition: milestones, and copies in adapter_path
    log: int  # events, the trainer's output, the report

    @property
    def checkpoint(self) -> int:
        """Bytes of one checkpoint; 0 if the model is not known."""
        return (self.adapter or 0) + (self.optimizer or 0)

    @property
    def total(self) -> int:
        """All known bytes."""
        return self.checkpoints * self.checkpoint + self.adapters * (self.adapter or 0) + self.log


def disk_need(spec: JobSpec, arrays: Sequence[Array] | None, *, valid_rows: int) -> SpaceNeed:
    """Estimate the space of a run; `arrays` is None if unknown. Each validation logs the loss of each of its rows."""
    keep = spec.lq.keep
    milestones = int(1 / keep.milestone_share) if keep.milestone_share > 0 else 0
    reports, validations = spec.iters // spec.steps_per_report + 1, spec.iters // spec.steps_per_eval + 2
    logged = reports * LINE_BYTES + (spec.iters + validations * valid_rows) * LOSS_BYTES
    return SpaceNeed(
        adapter=sum(array.nbytes + _ENTRY_BYTES for array in arrays) if arrays is not None else None,
        optimizer=sum(_state_bytes(array, spec.optimizer) for array in arrays) if arrays is not None else None,
        checkpoints=min(spec.iters, keep.last + keep.best + most_points(spec)),
        adapters=min(spec.iters, milestones) + (2 if spec.adapter_path is not None else 0),
        log=logged + TRAIN_LOG_BYTES + REPORT_BYTES,
    )


def trained_arrays(
    tensors: Mapping[str, tuple[int, tuple[int, ...]]], spec: JobSpec, *, bits: Mapping[str, int], usual_bits: int
) -> list[Array] | None:
    """Return the arrays that MLX-LM would train; None if the names of the tensors are unknown.

    Args:
        tensors: bytes of an element and shape of each tensor in the model's files.
        bits: of each quantized module with a width of its own, by name.
        usual_bits: of the other quantized modules.
    """
    named = {name: tensor for name, tensor in tensors.items() if not NOT_TRAINED.search(name)}
    layers = {name: (int(found[1]), found[2]) for name in named if (found := LAYER.search(name))}
    if not layers:
        return None
    first = max(number for number, _ in layers.values()) + 1 - spec.num_layers if spec.num_layers > 0 else 0
    trained = {name: below for name, (number, below) in layers.items() if number >= first}
    if spec.fine_tune_type == "full":
        return [Array(named[name][1], named[name][0]) for name in trained]
    keys = spec.lora_parameters.keys
    arrays: list[Array] = []
    for name, (_, shape) in named.items():
        module = name.removesuffix(".weight")
        below = trained.get(name, "").removesuffix(".weight")
        if module == name or not (below in keys or module in keys if keys is not None else below):
            continue
        if f"{module}.scales" in named:
            shape = (*shape[:-1], shape[-1] * 32 // bits.get(module, usual_bits))  # packed in words of 32 bits
        arrays += _adapted(shape, name, spec)
    return arrays


def _adapted(shape: tuple[int, ...], name: str, spec: JobSpec) -> Iterator[Array]:
    """Yield the float32 arrays that adapt a linear module, or one module for each expert."""
    rank = spec.lora_parameters.rank
    if len(shape) == 3 and ("expert" in name or "switch" in name):
        yield Array((shape[0], rank, shape[2]), _FLOAT32)
        yield Array((shape[0], shape[1], rank), _FLOAT32)
    elif len(shape) == 2:
        yield Array((shape[1], rank), _FLOAT32)
        yield Array((rank, shape[0]), _FLOAT32)
        if spec.fine_tune_type == "dora":
            yield Array((shape[0],), _FLOAT32)


def _state_bytes(array: Array, optimizer: str) -> int:
    """Return the bytes of the optimizer's state of an array: Adam twice its size, Adafactor a row and a column."""
    if optimizer in ("adam", "adamw"):
        return 2 * (array.nbytes + _ENTRY_BYTES)
    if optimizer == "adafactor" and len(array.shape) >= 2:
        rows, columns = math.prod(array.shape[:-1]), math.prod((*array.shape[:-2], array.shape[-1]))
        return (rows + columns) * array.itemsize + 2 * _ENTRY_BYTES
    return array.nbytes + _ENTRY_BYTES
