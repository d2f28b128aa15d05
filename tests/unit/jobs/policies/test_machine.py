"""Crashes that the machine causes, by the record of the attempt."""

from __future__ import annotations

import dataclasses

import pytest

from jobs.model.job import Attempt
from jobs.model.outcomes import Outcome, Reason
from jobs.policies.machine import MachineCause, machine_cause

NOTHING = dict.fromkeys(field.name for field in dataclasses.fields(Attempt))
HOME = "/home/ada/.lq"


def attempt(detail: str, *, reason: Reason = Reason.CRASHED, phase: str | None = None, iteration: int = 0) -> Attempt:
    """Return an attempt that crashed."""
    fields = NOTHING | {"outcome": Outcome.CRASHED, "reason": reason, "detail": detail, "phase": phase}
    return Attempt(**fields | {"first_iteration": 0, "last_iteration": iteration})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("crash", "cause"),
    [
        (attempt("ImportError: libmlx.so: file too short"), MachineCause.MLX),
        (attempt("ModuleNotFoundError: No module named 'mlx'"), MachineCause.MLX),
        (attempt("RuntimeError: [metal::Device] No Metal device"), MachineCause.MLX),
        (attempt("the GPU hung: x", reason=Reason.GPU_TIMEOUT, phase="train"), MachineCause.MLX),
        (attempt("RuntimeError: [Compile::eval_cpu] Failed to compile", phase="probe"), MachineCause.COMPILER),
        (attempt(f"PermissionError: [Errno 13] denied: '{HOME}/jobs/3/x'", phase="save"), MachineCause.HOME),
        (attempt(f"OSError: [Errno 30] Read-only file system: '{HOME}/jobs/3/x'"), MachineCause.HOME),
        (attempt("PermissionError: [Errno 13] Permission denied: '/data/x'"), None),
        (attempt("ImportError: the model needs tiktoken", phase="load"), None),
        (attempt("RuntimeError: no vocabulary", phase="tokenize"), None),
        (attempt("ImportError: libmlx.so", iteration=20), None),
        (attempt("ended by SIGKILL", reason=Reason.KILLED), None),
        (attempt("no progress", reason=Reason.STALLED, phase="load"), None),
    ],
    ids=lambda value: getattr(value, "detail", None),
)
def test_only_the_machine_is_accused(crash: Attempt, cause: MachineCause | None) -> None:
    assert machine_cause(crash, HOME) is cause


def test_refused_job_accuses_no_machine() -> None:
    refused = dataclasses.replace(attempt("ImportError: libmlx.so"), outcome=Outcome.REFUSED)
    assert machine_cause(refused, HOME) is None
