"""The time a run has left, from the speed that runs have shown. Pure, and light enough for `lq status`."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jobs.estimates.estimate import Source, TimeEstimate

SAME_SPREAD = 1.1
"""Runs with the same settings differ by this factor: heat, other programs."""

OTHER_SPREAD = 1.6
"""Speeds scaled from other settings of the same model are off by up to this factor."""

CHECKPOINTING_COSTS = 1.33
"""With gradient checkpointing an iteration runs its forward pass twice: four passes instead of three."""

TESTS_AT_END = 2
"""With `test: true` the trainer measures the last weights and, if they differ, the best ones."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast a configuration runs on this machine."""

    it_s: float  # iterations per second
    start_s: float  # from the trainer's start to its first iteration, compiling included
    validation_s: float  # one validation; 0 if there are none
    checkpoint_s: float  # one checkpoint
    test_s: float = 0.0  # one measurement of the test set; 0 if unknown or not wanted
    spread: float = SAME_SPREAD
    source: Source = Source.SAME_SETTINGS
    because: str  # the source, for the user


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObservedRun:
    """The speed of an earlier run of the same model under other settings."""

    job_id: int
    it_s: float  # iterations per second
    tokens: float  # per iteration, padding included
    checkpointing: bool
    start_s: float | None
    validation_s: float | None
    checkpoint_s: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunLength:
    """The settings of a job file that its duration depends on."""

    iters: int
    steps_per_eval: int
    save_every: int
    validates: bool
    segment: int | None  # iterations
    checkpoint_every_s: float

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> RunLength:
        """Read them from a spec as the store keeps it; KeyError or TypeError if another version of lq wrote it."""
        lq = spec["lq"]
        return cls(
            iters=int(spec["iters"]),
            steps_per_eval=int(spec["steps_per_eval"]),
            save_every=int(spec["save_every"]),
            validates=spec["val_batches"] != 0,
            segment=lq.get("segment"),
            checkpoint_every_s=lq["checkpoint"]["every"],
        )

    def validations(self, iteration: int) -> int:
        """Return the validations that remain: before the first iteration, by `steps_per_eval`, after the last."""
        due = _multiples(self.steps_per_eval, iteration, self.iters)
        return due + (iteration == 0) + (self.iters % self.steps_per_eval > 0 and iteration < self.iters)

    def checkpoints(self, iteration: int, *, training_s: float, validates: bool) -> int:
        """Return the checkpoints that remain: by iterations, or by the clock if those are more.

        `training_s` is the time that the remaining iterations take, in seconds. A validation saves its weights.
        """
        due = _multiples(self.save_every, iteration, self.iters)
        if validates:
            both = _multiples(math.lcm(self.steps_per_eval, self.save_every), iteration, self.iters)
            due += _multiples(self.steps_per_eval, iteration, self.iters) - both
        saved_at_end = self.iters % self.save_every == 0 or (validates and self.iters % self.steps_per_eval == 0)
        due += not saved_at_end and iteration < self.iters
        return max(due, math.floor(training_s / self.checkpoint_every_s))

    def starts(self, iteration: int) -> int:
        """Return the trainers that the remaining iterations need."""
        remaining = max(0, self.iters - iteration)
        return max(1, math.ceil(remaining / self.segment)) if self.segment is not None else 1


def _multiples(every: int, begun: int, end: int) -> int:
    """Return the multiples of `every` after `begun`, up to `end`."""
    return max(0, end // every - begun // every)


def time_left(length: RunLength, speed: Speed, *, iteration: int, running: bool = False) -> TimeEstimate:
    """Estimate the time a run has left; the trainer of a `running` one need not start."""
    iterations = max(0, length.iters - iteration)
    train_s = iterations / speed.it_s
    validates = length.validates and speed.validation_s > 0
    validations = length.validations(iteration) if validates else 0
    checkpoints = length.checkpoints(iteration, training_s=train_s, validates=validates)
    starts = length.starts(iteration) - running
    return TimeEstimate(
        iterations=iterations,
        validations=validations,
        checkpoints=checkpoints,
        starts=starts,
        start_s=starts * speed.start_s,
        train_s=train_s,
        validation_s=validations * speed.validation_s,
        checkpoint_s=checkpoints * speed.checkpoint_s,
        test_s=(TESTS_AT_END + (iteration == 0)) * speed.test_s,
        spread=speed.spread,
        source=speed.source,
        because=speed.because,
    )


def scaled_speed(others: Sequence[ObservedRun], *, tokens: float, checkpointing: bool) -> Speed | None:
    """Return the speed of a configuration from other runs of the same model; None if there are none.

    The time of an iteration is proportional to its `tokens`, padding included.
    """
    if not others:
        return None
    token_s = statistics.median(run.it_s * run.tokens * _passes(run.checkpointing) for run in others)
    return Speed(
        it_s=token_s / (tokens * _passes(checkpointing)),
        start_s=_median(run.start_s for run in others),
        validation_s=_median(run.validation_s for run in others),
        checkpoint_s=_median(run.checkpoint_s for run in others),
        spread=OTHER_SPREAD,
        source=Source.OTHER_SETTINGS,
        because=f"{named_jobs(run.job_id for run in others)} with this model and other settings",
    )


def named_jobs(ids: Iterable[int]) -> str:
    """Return `job 3`, or `2 jobs`."""
    jobs = set(ids)
    return f"job {jobs.pop()}" if len(jobs) == 1 else f"{len(jobs)} jobs"


def _passes(checkpointing: bool) -> float:
    return CHECKPOINTING_COSTS if checkpointing else 1.0


def _median(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else 0.0
