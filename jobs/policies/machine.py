"""Crashes that the machine causes, not the job (docs/explanation/policies.md, section 3).

Only these pause the queue. Each has a check in `lq doctor`, which decides whether the cause is still there.
"""

from __future__ import annotations

import re
from enum import StrEnum

from jobs.model.job import Attempt
from jobs.model.outcomes import Outcome, Reason

_DEVICE = re.compile(r"\[METAL\]|\[metal::|\bMetal\b.*(?:available|supported|device)|No Metal|metallib|libmlx|CUDA")
_PACKAGES = re.compile(r"^(?:ImportError|ModuleNotFoundError)\b|^AttributeError: module '(?:mlx|numpy|transformers)")
_COMPILER = re.compile(r"Compile::eval_cpu|C\+\+ (?:compiler|shared library)")
_NO_PERMISSION = re.compile(r"\[Errno (?:1|13|30)\] ")  # EPERM, EACCES, EROFS


class MachineCause(StrEnum):
    """A cause, named as its check in `lq doctor`."""

    MLX = "mlx"
    COMPILER = "compiler"
    HOME = "home"


def is_device_error(text: str) -> bool:
    """Return whether an error message is about the device or its driver."""
    return _DEVICE.search(text) is not None


def machine_cause(attempt: Attempt, home: str) -> MachineCause | None:
    """Return the cause of an attempt that crashed before its first iteration; None if the machine is not the cause.

    Args:
        home: the path of lq's home, where every job writes.
    """
    detail, trained = attempt.detail or "", (attempt.last_iteration or 0) > (attempt.first_iteration or 0)
    if attempt.outcome != Outcome.CRASHED or trained:
        return None
    if attempt.reason == Reason.GPU_TIMEOUT or is_device_error(detail):
        return MachineCause.MLX
    if attempt.reason != Reason.CRASHED:
        return None
    if _NO_PERMISSION.search(detail) is not None and home in detail:
        return MachineCause.HOME
    if _COMPILER.search(detail) is not None:
        return MachineCause.COMPILER
    return MachineCause.MLX if attempt.phase is None and _PACKAGES.search(detail) is not None else None
