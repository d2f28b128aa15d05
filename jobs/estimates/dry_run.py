"""What a dry run shows of a run: its speed, and whether the run would fail. Pure.

A dry run does everything a run does, a few times, and measures it (workers/mlx/dry_run_steps.py). Its batches are as
wide as the run's mean batch; the padded tokens of both correct the remaining difference.
"""

from __future__ import annotations

import dataclasses
import math

from jobs.estimates.estimate import Source, TimeEstimate
from jobs.estimates.run_time import RunLength, Speed, time_left
from jobs.model.memory_limit import GUARD_SHARE, fits
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import Stage
from jobs.model.spec import JobSpec
from jobs.policies import oom


@dataclasses.dataclass(frozen=True, kw_only=True)
class DryRunMeasurements:
    """What a dry run measured; times in seconds, sizes in bytes."""

    iteration: int  # completed iterations of the run when the dry run began
    updates: int  # optimizer updates that it made
    accumulation: int  # iterations per update
    first_update_s: float  # the first update: MLX compiles it
    update_s: float  # a later update, the median
    positions: float  # padded tokens of one of its batches
    mean_positions: float  # padded tokens of the run's mean batch
    start_s: float  # from the process to its first update, without compiling
    validation_s: float | None  # one whole validation; None if there is none
    validation_loss: float | None  # of the rows it validated; None if there are none
    test_s: float | None  # one whole measurement of the test set
    checkpoint_s: float | None  # one checkpoint, written and flushed; None if none was written
    checkpoint_bytes: int | None
    not_finite: tuple[str, ...]  # one line for each batch whose loss or gradients were not finite

    @property
    def it_s(self) -> float:
        """Iterations per second on the run's mean batch, without compiling."""
        return self.accumulation / (self.update_s * self.mean_positions / self.positions)

    @property
    def speed(self) -> Speed:
        """The speed of the run; its start includes the time that compiling adds to the first update."""
        return Speed(
            it_s=self.it_s,
            start_s=self.start_s + max(0.0, self.first_update_s - self.update_s),
            validation_s=self.validation_s or 0.0,
            checkpoint_s=self.checkpoint_s or 0.0,
            test_s=self.test_s or 0.0,
            source=Source.DRY_RUN,
            because="measured by this dry run",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class DryRunFailure:
    """Why a run would fail."""

    code: str  # a reason code
    text: str  # one line for the user


def estimated_time(spec: JobSpec, measured: DryRunMeasurements) -> TimeEstimate:
    """Estimate the time the run has left at the measured speed."""
    return time_left(RunLength.of(spec.model_dump(mode="json")), measured.speed, iteration=measured.iteration)


def failures(
    spec: JobSpec,
    stage: Stage,
    ending: Ending | None,
    measured: DryRunMeasurements | None,
    *,
    peak_bytes: int | None,
    limit_bytes: int | None,
    shortage: str | None,
) -> list[DryRunFailure]:
    """Return why a run would fail; empty if the dry run shows no reason.

    Args:
        ending: how the dry run ended; None if none was started.
        measured: None if the dry run did not complete.
        shortage: why the disk is too small; None if it is not.
    """
    reasons = []
    if ending is not None and ending.outcome is not Outcome.DONE:
        remedy = f"; {_remedy(spec, stage)}" if ending.reason is Reason.OUT_OF_MEMORY else ""
        reasons.append(DryRunFailure(code=ending.reason.value, text=f"{ending.detail}{remedy}"))
    elif peak_bytes is not None and limit_bytes is not None and not fits(peak_bytes, limit_bytes):
        text = (
            f"does not fit: it took {peak_bytes / 1e9:.2f} GB, more than {GUARD_SHARE:.0%} of its limit of "
            f"{limit_bytes / 1e9:.2f} GB; {_remedy(spec, stage)}"
        )
        reasons.append(DryRunFailure(code=Reason.OUT_OF_MEMORY.value, text=text))
    if measured is not None:
        reasons += [DryRunFailure(code=Reason.NOT_FINITE.value, text=text) for text in measured.not_finite]
        loss = measured.validation_loss
        if loss is not None and not math.isfinite(loss):
            reasons.append(DryRunFailure(code=Reason.NOT_FINITE.value, text=f"the validation loss is {loss}"))
    if shortage is not None:
        reasons.append(DryRunFailure(code=Reason.DISK_FULL.value, text=shortage))
    return reasons


def _remedy(spec: JobSpec, stage: Stage) -> str:
    """Return what the worker would try next, or what the user can change."""
    for _, text in oom.ladder(stage, allow_truncation=spec.lq.memory.allow_truncation):
        return f"lq would try next: {text}"
    return oom.advice(stage)
