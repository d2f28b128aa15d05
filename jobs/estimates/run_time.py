"""How long a run will take, from what earlier runs showed. Pure; in seconds while the machine is awake."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.model.spec import JobSpec

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Due:
    """What a run still does beside its iterations."""

    validations: int
    checkpoints: int
    starts: int  # of a trainer, the one that is to come or runs among them


def due(spec: JobSpec, *, iteration: int, training_s: float, validates: bool) -> Due:
    """Count what is due until the last iteration.

    There is a validation before the first iteration and after the last, and each is kept with its weights; checkpoints
    come by iterations and, where those take long, by the clock.

    Args:
        spec: what is asked for.
        iteration: completed iterations.
        training_s: what the iterations that are left take, in seconds.
        validates: whether there is a validation set.
    """
    iters, evaluates, saves = spec.iters, spec.steps_per_eval, spec.save_every
    validates = validates and spec.val_batches != 0
    validations = _multiples(evaluates, iteration, iters)
    checkpoints = _multiples(saves, iteration, iters)
    if validates:
        checkpoints += validations - _multiples(math.lcm(evaluates, saves), iteration, iters)
    checkpoints += iters % saves > 0 and not (validates and iters % evaluates == 0)
    left = max(0, iters - iteration)
    return Due(
        validations=validations + (iteration == 0) + (iters % evaluates > 0) if validates else 0,
        checkpoints=max(checkpoints, math.floor(training_s / spec.lq.checkpoint.every)),
        starts=max(1, math.ceil(left / spec.lq.segment)) if spec.lq.segment is not None else 1,
    )


def _multiples(every: int, begun: int, end: int) -> int:
    """Return the multiples of `every` after `begun`, up to `end`."""
    return max(0, end // every - begun // every)


def left(spec: JobSpec, pace: Pace, *, iteration: int, validates: bool, running: bool = False) -> RunTime:
    """Return what is left of a run.

    Args:
        spec: what is asked for.
        pace: how fast it goes.
        iteration: completed iterations.
        validates: whether there is a validation set.
        running: it trains already, so it need not start.
    """
    training_s = max(0, spec.iters - iteration) / pace.it_s
    beside = due(spec, iteration=iteration, training_s=training_s, validates=validates)
    whole = training_s + (beside.starts - running) * pace.start_s
    whole += beside.validations * pace.validation_s + beside.checkpoints * pace.checkpoint_s
    return RunTime(low=whole / pace.spread, expected=whole, high=whole * pace.spread, because=pace.because)


def _work(checkpointing: bool) -> float:
    return CHECKPOINTING_COSTS if checkpointing else 1.0


def _median(values: Sequence[float | None]) -> float:
    known = [one for one in values if one is not None]
    return statistics.median(known) if known else 0.0
