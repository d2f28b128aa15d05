"""The arguments of MLX's optimizers and schedules, copied from mlx/optimizers/optimizers.py and schedulers.py.

tests/unit/configs compares them with the sources.
"""

from __future__ import annotations

from collections.abc import Mapping

_ADAM = {"betas": "pair", "eps": "number", "bias_correction": "flag"}

OPTIMIZERS: Mapping[str, Mapping[str, str]] = {
    "adam": _ADAM,
    "adamw": _ADAM | {"weight_decay": "number"},
    "muon": {"momentum": "number", "weight_decay": "number", "nesterov": "flag", "ns_steps": "count"},
    "sgd": {"momentum": "number", "weight_decay": "number", "dampening": "number", "nesterov": "flag"},
    "adafactor": {
        "eps": "pair",
        "clip_threshold": "number",
        "decay_rate": "number",
        "beta_1": "number",
        "weight_decay": "number",
        "scale_parameter": "flag",
        "relative_step": "flag",
        "warmup_init": "flag",
    },
}
"""The arguments of each optimizer, without the learning rate, and their kinds."""

SCHEDULES: Mapping[str, tuple[str, ...]] = {
    "exponential_decay": ("init", "decay_rate"),
    "step_decay": ("init", "decay_rate", "step_size"),
    "cosine_decay": ("init", "decay_steps", "[end]"),
    "linear_schedule": ("init", "end", "steps"),
}
"""The schedules and their arguments in order, optional ones in brackets. `join_schedules` needs functions, which a file
cannot contain."""

STEPS = ("step_size", "decay_steps", "steps")  # arguments of schedules that are numbers of updates
