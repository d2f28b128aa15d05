"""The estimator: what a run takes, by earlier runs if there are any, else by the formula.

Reads models and data. `lq status` and the worker, which must stay light, ask RunHistory for the time and PeakEstimates
for the memory; both give the same values as this module for what has run before.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.estimates.estimate import Estimate, MemoryEstimate, TimeEstimate
from jobs.estimates.memory import ObservedPeak, estimate_memory
from jobs.estimates.run_time import ObservedRun, RunLength, scaled_speed, time_left
from jobs.model.configuration import fit_key
from jobs.model.errors import LqError
from jobs.model.job import Fit, Job
from jobs.model.run_plan import RunPlan, Stage
from jobs.model.spec import JobSpec
from orchestrator.estimation.formula import Formula
from orchestrator.estimation.history import RunHistory

if TYPE_CHECKING:
    from orchestrator.store.store import Store

MOST_CONFIGURATIONS = 12  # this many configurations of a model, those that ran last, correct the formula


class Estimator:
    def __init__(self, store: Store | None, cache: Path | None) -> None:
        """Read the history of runs, if there is a `store`; keep the lengths of rows in the folder `cache`, if any."""
        self._store = store
        self.history = RunHistory(store) if store is not None else None
        self.formula = Formula(cache)
        self._observed = functools.cache(lambda model: list(self._observe(model)))

    def estimate(self, spec: JobSpec, stage: Stage, *, job: Job | None = None, validates: bool = True) -> Estimate:
        """Estimate what a run takes, and what is left of it; `job` is None if it is not submitted."""
        return Estimate(memory=self.memory(spec, stage), time=self.time(spec, stage, job=job, validates=validates))

    def memory(self, spec: JobSpec, stage: Stage) -> MemoryEstimate | None:
        """Estimate the peak memory; None if the model's files are not on this machine or do not tell its shape."""
        parts = self.formula.parts(spec, stage)
        if parts is None:
            return None
        fit, same = self.fit(spec, stage), None
        if fit is not None and fit.fits and fit.peak_bytes:
            same = ObservedPeak(job_id=fit.job_id, peak_bytes=fit.peak_bytes, ratio=1.0)
        others = [peak for peak, _ in self._observed(spec.model) if peak is not None]
        return estimate_memory(parts, same=same, others=others)

    def time(self, spec: JobSpec, stage: Stage, *, job: Job | None, validates: bool) -> TimeEstimate | None:
        """Estimate the time that is left; None if no run of the model has shown a speed."""
        content = spec.model_dump(mode="json")
        if self.history is None:
            return None
        if job is not None and (known := self.history.time_left(job, content)) is not None:
            return known
        speed = self.history.speed(content, stage)
        if speed is None:
            runs = [run for _, run in self._observed(spec.model) if run is not None]
            tokens = self.formula.tokens_per_iteration(spec, stage)
            speed = scaled_speed(runs, tokens=tokens, checkpointing=stage.grad_checkpoint)
        if speed is None:
            return None
        length = dataclasses.replace(RunLength.of(content), validates=validates and spec.val_batches != 0)
        return time_left(length, speed, iteration=job.iteration if job is not None else 0)

    def fit(self, spec: JobSpec, stage: Stage) -> Fit | None:
        """Return what runs with these settings have shown; None if there were none."""
        return self.history.fits.get(fit_key(spec, stage)) if self.history is not None else None

    def _observe(self, model: str) -> Iterator[tuple[ObservedPeak | None, ObservedRun | None]]:
        if self.history is None or self._store is None:
            return
        known = [(key, fit) for key, fit in self.history.fits.items() if json.loads(key)[0] == model]
        for key, fit in known[:MOST_CONFIGURATIONS]:
            try:
                spec = self._store.spec(fit.job_id)
            except (LqError, ValueError):  # a dry run of a file, or another version of lq wrote the spec
                continue
            stage = _stage_of(key, spec)
            yield self._peak(spec, stage, fit), self._run(self.history, spec, stage, fit)

    def _peak(self, spec: JobSpec, stage: Stage, fit: Fit) -> ObservedPeak | None:
        parts = self.formula.parts(spec, stage)
        if parts is None or not fit.fits or not fit.peak_bytes:
            return None
        return ObservedPeak(job_id=fit.job_id, peak_bytes=fit.peak_bytes, ratio=fit.peak_bytes / parts.shown)

    def _run(self, history: RunHistory, spec: JobSpec, stage: Stage, fit: Fit) -> ObservedRun | None:
        if not fit.it_s:
            return None
        return ObservedRun(
            job_id=fit.job_id,
            it_s=fit.it_s,
            tokens=self.formula.tokens_per_iteration(spec, stage),
            checkpointing=stage.grad_checkpoint,
            start_s=fit.start_s,
            validation_s=fit.validation_s,
            checkpoint_s=history.checkpoint_s(fit.job_id),
        )


def _stage_of(key: str, spec: JobSpec) -> Stage:
    *_, batch_size, max_seq_length, grad_checkpoint = json.loads(key)
    return dataclasses.replace(
        RunPlan.requested(spec).stages[0],
        batch_size=batch_size,
        max_seq_length=max_seq_length,
        grad_checkpoint=grad_checkpoint,
    )
