"""What a rehearsal of a run says about the run: whether it would fail, and how long it would take. Pure.

A rehearsal does everything a run does, a few times, and measures it (workers/mlx/dry_run_steps.py). The batches it
tries are as wide as the mean one of the run, and what is left of the difference is taken out by the padded tokens of
both.
"""

from __future__ import annotations

import dataclasses
import math

from jobs.estimates import run_time
from jobs.model.memory_limit import GUARD_SHARE, fits
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import Stage
from jobs.model.spec import JobSpec
from jobs.policies import oom

TESTS_AFTER = 2
"""At the end `test: true` measures the last weights, and the best ones where they are others."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tried:
    """What a rehearsal measured; times in seconds, sizes in bytes."""

    iteration: int  # completed iterations of the run where it was taken up
    updates: int  # optimizer updates that were tried
    accumulation: int  # iterations per update
    first_update_s: float  # the first one: MLX compiles it
    update_s: float  # a later one, the median
    positions: float  # padded tokens of a batch that was tried
    mean_positions: float  # padded tokens of the run's mean batch
    start_s: float  # from the process to its first update, without compiling
    validation_s: float | None  # one whole validation; None where there is none
    validation_loss: float | None  # of the rows that were tried; None where there is none
    test_s: float | None  # one whole measurement of the test set
    checkpoint_s: float | None  # one checkpoint, written and flushed; None where none was written
    checkpoint_bytes: int | None
    not_finite: tuple[str, ...]  # one line for each batch whose loss or gradients were not finite

    @property
    def it_s(self) -> float:
        """Iterations per second on the run's mean batch, without compiling."""
        return self.accumulation / (self.update_s * self.mean_positions / self.positions)

    @property
    def compile_s(self) -> float:
        """What the first update took longer than a later one."""
        return max(0.0, self.first_update_s - self.update_s)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forecast:
    """How long the rest of a run takes while nothing goes wrong; times in seconds."""

    iterations: int  # to train
    validations: int
    checkpoints: int
    starts: int  # one, or one a segment
    start_s: float  # of all starts, compiling included
    train_s: float
    validation_s: float  # of all validations
    checkpoint_s: float  # of all checkpoints
    test_s: float

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.start_s + self.train_s + self.validation_s + self.checkpoint_s + self.test_s


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a run would fail."""

    code: str  # a reason code
    text: str  # one line for a person


def forecast(spec: JobSpec, tried: Tried) -> Forecast:
    """Reckon what the run takes from where it stands.

    Args:
        spec: what is asked for.
        tried: what was measured.
    """
    left = max(0, spec.iters - tried.iteration)
    train_s = left / tried.it_s
    beside = run_time.due(spec, iteration=tried.iteration, training_s=train_s, validates=tried.validation_s is not None)
    return Forecast(
        iterations=left,
        validations=beside.validations,
        checkpoints=beside.checkpoints,
        starts=beside.starts,
        start_s=beside.starts * (tried.start_s + tried.compile_s),
        train_s=train_s,
        validation_s=beside.validations * (tried.validation_s or 0.0),
        checkpoint_s=beside.checkpoints * (tried.checkpoint_s or 0.0),
        test_s=(TESTS_AFTER + (tried.iteration == 0)) * (tried.test_s or 0.0),
    )


def failures(
    spec: JobSpec,
    stage: Stage,
    ending: Ending | None,
    tried: Tried | None,
    *,
    peak_bytes: int | None,
    limit_bytes: int | None,
    shortage: str | None,
) -> list[Failure]:
    """Say why a run would fail; empty where it would not, as far as a rehearsal shows.

    Args:
        spec: what is asked for.
        stage: under which it was rehearsed.
        ending: how the rehearsal ended; None where there was none.
        tried: what it measured; None where it did not come to its end.
        peak_bytes: the most it took; None where it did not say.
        limit_bytes: what it may take.
        shortage: why the disk is too small; None where it is not.
    """
    found = []
    if ending is not None and ending.outcome is not Outcome.DONE:
        remedy = f"; {_remedy(spec, stage)}" if ending.reason is Reason.OUT_OF_MEMORY else ""
        found.append(Failure(code=ending.reason.value, text=f"{ending.detail}{remedy}"))
    elif peak_bytes is not None and limit_bytes is not None and not fits(peak_bytes, limit_bytes):
        text = (
            f"does not fit: it took {peak_bytes / 1e9:.2f} GB, more than {GUARD_SHARE:.0%} of its limit of "
            f"{limit_bytes / 1e9:.2f} GB; {_remedy(spec, stage)}"
        )
        found.append(Failure(code=Reason.OUT_OF_MEMORY.value, text=text))
    if tried is not None:
        found += [Failure(code=Reason.NOT_FINITE.value, text=text) for text in tried.not_finite]
        loss = tried.validation_loss
        if loss is not None and not math.isfinite(loss):
            found.append(Failure(code=Reason.NOT_FINITE.value, text=f"the validation loss is {loss}"))
    if shortage is not None:
        found.append(Failure(code=Reason.DISK_FULL.value, text=shortage))
    return found


def _remedy(spec: JobSpec, stage: Stage) -> str:
    """Say what lq would try by itself, or what the user can change."""
    rung = oom.next_rung(
        stage,
        first_example=0,
        may_repeat=False,
        peak_bytes=None,
        free_bytes=None,
        allow_truncation=spec.lq.memory.allow_truncation,
    )
    return oom.what_would_fit(stage) if rung.stage is None else f"lq would try next: {rung.text}"
