"""The learning rate over a run, as MLX makes it from `learning_rate` or `lr_schedule`. Pure.

The formulas are those of mlx/optimizers/schedulers.py; tests/mlx compares them. A schedule counts optimizer updates,
of which there is one every `grad_accumulation_steps` iterations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from jobs.model.spec import JobSpec, LrSchedule

MOST_LOOKS = 4096
"""Updates at which a long schedule is looked at for its highest rate."""

Rate = Callable[[int], float]
"""From updates made before to the rate of the next one."""


def updates(spec: JobSpec) -> int:
    """Return the optimizer updates of a run."""
    return spec.iters // spec.grad_accumulation_steps


def rate(spec: JobSpec) -> Rate:
    """Return the learning rate of each update."""
    schedule = spec.lr_schedule
    if schedule is None:
        return lambda _: spec.learning_rate
    main = _FORMULAS[schedule.name](schedule.arguments)
    if not schedule.warmup:
        return main
    climb = _linear((schedule.warmup_init, schedule.arguments[0], schedule.warmup))
    return lambda step: climb(step) if step <= schedule.warmup else main(step - schedule.warmup - 1)


def highest(spec: JobSpec) -> float:
    """Return the highest rate of the run."""
    made, of = updates(spec), rate(spec)
    stride = max(1, made // MOST_LOOKS)
    looked_at = {*range(0, max(1, made), stride), max(0, made - 1)}
    if spec.lr_schedule is not None:
        looked_at |= {step for step in (spec.lr_schedule.warmup, spec.lr_schedule.warmup + 1) if step < made}
    return max(of(step) for step in looked_at)


def planned(schedule: LrSchedule) -> int | None:
    """Return the updates after which a schedule has come to its end, warm-up included; None where it has none."""
    place = _STEPS.get(schedule.name)
    return None if place is None else schedule.warmup + int(schedule.arguments[place])


def _exponential(arguments: Sequence[float]) -> Rate:
    init, decay_rate = arguments[:2]
    return lambda step: init * decay_rate**step


def _step(arguments: Sequence[float]) -> Rate:
    init, decay_rate, size = arguments[:3]
    return lambda step: init * decay_rate ** (step // size)


def _cosine(arguments: Sequence[float]) -> Rate:
    init, steps, end = (*arguments, 0.0)[:3]
    return lambda step: end + 0.5 * (1.0 + math.cos(math.pi * min(step, steps) / steps)) * (init - end)


def _linear(arguments: Sequence[float]) -> Rate:
    init, end, steps = arguments[:3]
    return lambda step: min(step, steps) * ((end - init) / steps) + init


_FORMULAS: Mapping[str, Callable[[Sequence[float]], Rate]] = {
    "exponential_decay": _exponential,
    "step_decay": _step,
    "cosine_decay": _cosine,
    "linear_schedule": _linear,
}
_STEPS = {"cosine_decay": 1, "linear_schedule": 2}
