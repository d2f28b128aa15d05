"""How long a run will take, from what earlier runs showed. Pure; in seconds while the machine is awake."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.spec import JobSpec

SAME_SPREAD = 1.1
"""Nights with the very same settings differ by so much: heat, other programs."""

OTHER_SPREAD = 1.6
"""Where the speed comes from other settings of the same model, the time may be so many times shorter or longer."""

CHECKPOINTING_COSTS = 1.33
"""With gradient checkpointing an iteration does its forward pass twice: four passes' work instead of three."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast a configuration runs on this machine."""

    it_s: float  # iterations per second
    start_s: float  # from the trainer's start until it trains, in seconds
    validation_s: float  # one validation
    checkpoint_s: float  # one checkpoint
    spread: float  # the time may be so many times shorter or longer
    because: str  # where it is known from, for a person


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """What a run of the same model under other settings showed."""

    job_id: int
    it_s: float  # iterations per second
    tokens: float  # per iteration, padding included
    checkpointing: bool
    start_s: float | None
    validation_s: float | None
    checkpoint_s: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunTime:
    """What is left of a run, in seconds."""

    low: float
    expected: float
    high: float
    because: str  # where it is known from, for a person


def pace_from(others: Sequence[Seen], *, tokens: float, checkpointing: bool) -> Pace | None:
    """Return the pace of a configuration by what others of the same model showed; None where none did.

    Time goes with the tokens of an iteration.

    Args:
        others: what was seen.
        tokens: per iteration of this one, padding included.
        checkpointing: whether it computes activations twice.
    """
    if not others:
        return None
    token_s = statistics.median(one.it_s * one.tokens * _work(one.checkpointing) for one in others)
    jobs = sorted({one.job_id for one in others})
    named = f"job {jobs[0]}" if len(jobs) == 1 else f"{len(jobs)} jobs"
    return Pace(
        it_s=token_s / (tokens * _work(checkpointing)),
        start_s=_median([one.start_s for one in others]),
        validation_s=_median([one.validation_s for one in others]),
        checkpoint_s=_median([one.checkpoint_s for one in others]),
        spread=OTHER_SPREAD,
        because=f"{named} with this model and other settings",
    )


def left(spec: JobSpec, pace: Pace, *, iteration: int, validates: bool, running: bool = False) -> RunTime:
    """Return what is left of a run.

    Args:
        spec: what is asked for.
        pace: how fast it goes.
        iteration: completed iterations.
        validates: whether there is a validation set.
        running: it trains already, so it need not start.
    """
    iterations = max(0, spec.iters - iteration)
    training = iterations / pace.it_s
    by_time = int(training // spec.lq.checkpoint.every)
    checkpoints = max(spec.iters // spec.save_every - iteration // spec.save_every, by_time) + 1
    validations = _validations(spec, iteration) if validates and spec.val_batches != 0 else 0
    start = 0.0 if running else pace.start_s
    whole = start + training + validations * pace.validation_s + checkpoints * pace.checkpoint_s
    return RunTime(low=whole / pace.spread, expected=whole, high=whole * pace.spread, because=pace.because)


def _validations(spec: JobSpec, iteration: int) -> int:
    """Return how many are still due: one before the first iteration, and one after the last."""
    due = spec.iters // spec.steps_per_eval - iteration // spec.steps_per_eval
    return due + (iteration == 0) + (spec.iters % spec.steps_per_eval != 0)


def _work(checkpointing: bool) -> float:
    return CHECKPOINTING_COSTS if checkpointing else 1.0


def _median(values: Sequence[float | None]) -> float:
    known = [one for one in values if one is not None]
    return statistics.median(known) if known else 0.0
