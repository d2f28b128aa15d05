"""Checkpoint contents as the trainer writes them: safetensors files of a few bytes, and a state."""

from __future__ import annotations

import json

from workers.checkpoints.state import CheckpointState, SavedValidation
from workers.events.reporter import PendingReport


def holding(content: bytes) -> bytes:
    """Return a whole safetensors file with one tensor of these bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(content)], "data_offsets": [0, len(content)]}}).encode()
    return len(header).to_bytes(8, "little") + header + content


def held_in(file: bytes) -> bytes:
    """Return the bytes of the tensor."""
    return file[8 + int.from_bytes(file[:8], "little") :]


def state_at(iteration: int, *, examples: int = 0, loss: float | None = None) -> CheckpointState:
    """Return the state of a checkpoint, validated if a loss is given."""
    validation = (
        SavedValidation(loss=loss, standard_error=None, examples=1, iteration=iteration) if loss is not None else None
    )
    return CheckpointState(
        iteration=iteration,
        examples_seen=examples,
        stage=0,
        updates=iteration,
        finite=True,
        random_key=(0, 7),
        progress=PendingReport(tokens=0, losses=(), skipped=()),
        validation=validation,
        self_test=None,
        versions={},
        machine="",
        data={},
    )
