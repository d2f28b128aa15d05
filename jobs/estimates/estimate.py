"""An estimate of a run: the memory it takes and the time it has left, each with a range and a source."""

from __future__ import annotations

import dataclasses
from enum import StrEnum

PROGRAM_BYTES = 140_000_000
"""Python, MLX and MLX-LM themselves, in addition to what MLX counts (measured on Linux: 116 to 146 MB)."""


class Source(StrEnum):
    """Where an estimate comes from, the most reliable first."""

    MEASURED = "measured"  # by the running attempt
    DRY_RUN = "dry run"
    SAME_SETTINGS = "same settings"  # by an earlier run
    OTHER_SETTINGS = "other settings"  # by earlier runs of the same model, scaled
    FORMULA = "formula"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryParts:
    """Bytes at the memory peak by their use."""

    weights: int  # weights of the model
    trained: int  # trained parameters and the state of the optimizer
    activations: int  # activations kept for the backward pass of the longest batch
    logits: int  # logits of the longest batch
    gradients: int  # gradients, and the new arrays of an update if the update is the peak

    @property
    def resting(self) -> int:
        """What MLX counts between two iterations."""
        return self.weights + self.trained

    @property
    def device(self) -> int:
        """What MLX counts at the peak."""
        return self.resting + self.activations + self.logits + self.gradients

    @property
    def shown(self) -> int:
        """What the trainer would report: the larger of MLX's peak and of the process between two iterations."""
        return max(self.device, PROGRAM_BYTES + self.resting)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """The peak memory of a run, in bytes."""

    low: int
    expected: int
    high: int
    parts: MemoryParts  # by the formula
    source: Source
    because: str  # the source, for the user


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeEstimate:
    """The time a run has left if nothing goes wrong, in seconds while the machine is awake."""

    iterations: int
    validations: int
    checkpoints: int
    starts: int  # of a trainer: one, or one a segment; a running trainer's is not counted
    start_s: float  # all starts, compiling included
    train_s: float
    validation_s: float  # all validations
    checkpoint_s: float  # all checkpoints
    test_s: float  # all measurements of the test set
    spread: float  # the time may be this many times shorter or longer
    source: Source
    because: str  # the source, for the user

    @property
    def expected_s(self) -> float:
        """The whole time."""
        return self.start_s + self.train_s + self.validation_s + self.checkpoint_s + self.test_s

    @property
    def low_s(self) -> float:
        """The shortest time to expect."""
        return self.expected_s / self.spread

    @property
    def high_s(self) -> float:
        """The longest time to expect."""
        return self.expected_s * self.spread


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run takes."""

    memory: MemoryEstimate | None  # None if the model's files are not on this machine or do not tell its shape
    time: TimeEstimate | None  # None if no run of the model has shown a speed
