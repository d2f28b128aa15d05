"""What earlier runs of a model showed: the memory and the time they took, beside what the formula says of them."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterator
from typing import TYPE_CHECKING

from jobs.estimates.memory import Measurement
from jobs.estimates.run_time import SAME_SPREAD, Pace, Seen, pace_from
from jobs.model.configuration import fit_key
from jobs.model.errors import LqError
from jobs.model.job import Fit, Job, ProgressPoint
from jobs.model.run_plan import RunPlan, Stage
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from orchestrator.estimation.estimator import Estimator

if TYPE_CHECKING:
    from orchestrator.store.store import Store

MOST = 12
"""Of a model's configurations the last seen so many are looked at."""


def showed_by(fit: Fit) -> str:
    """Return who showed it: a job, or `lq check` of a file."""
    return f"job {fit.job_id}" if fit.job_id else "lq check"


class RunHistory:
    """What the store knows of configurations; each is reckoned once."""

    def __init__(self, store: Store | None, reckoner: Estimator) -> None:
        """Look at nothing yet, but at the trainers that run.

        Args:
            store: None where nothing was ever submitted.
            reckoner: says what the formula says.
        """
        self._store, self._reckoner = store, reckoner
        self._fits = store.fits.all() if store is not None else {}
        self._seen: dict[str, list[tuple[Measurement | None, Seen | None]]] = {}
        if store is not None:
            for job in store.jobs.overview(ended=0):
                if job.status is Status.RUNNING:
                    self._learn_from(store, job)

    def fit(self, spec: JobSpec, stage: Stage) -> Fit | None:
        """Return what is known of these very settings."""
        return self._fits.get(fit_key(spec, stage))

    def memory(self, spec: JobSpec, stage: Stage) -> tuple[Measurement | None, list[Measurement]]:
        """Return what these very settings took, where they were seen to fit, and what others of the model took."""
        fit = self.fit(spec, stage)
        same = None
        if fit is not None and fit.fits and fit.peak_bytes:
            same = Measurement(job_id=fit.job_id, peak_bytes=fit.peak_bytes, ratio=1.0)
        return same, [one for one, _ in self._of_model(spec.model) if one is not None]

    def pace(self, spec: JobSpec, stage: Stage) -> Pace | None:
        """Return how fast these settings run; None where no run of the model told."""
        others = [one for _, one in self._of_model(spec.model) if one is not None]
        tokens = self._reckoner.tokens_per_iteration(spec, stage)
        guessed = pace_from(others, tokens=tokens, checkpointing=stage.grad_checkpoint)
        fit = self.fit(spec, stage)
        if fit is None or not fit.it_s:
            return guessed
        return Pace(
            it_s=fit.it_s,
            start_s=fit.start_s if fit.start_s is not None else guessed.start_s if guessed else 0.0,
            validation_s=fit.validation_s if fit.validation_s is not None else guessed.validation_s if guessed else 0.0,
            checkpoint_s=self._checkpoint_s(fit.job_id) or 0.0,
            spread=SAME_SPREAD,
            because=f"{showed_by(fit)} with the same settings",
        )

    def _of_model(self, model: str) -> list[tuple[Measurement | None, Seen | None]]:
        if model not in self._seen:
            self._seen[model] = list(self._look_at(model))
        return self._seen[model]

    def _look_at(self, model: str) -> Iterator[tuple[Measurement | None, Seen | None]]:
        chosen = [(key, fit) for key, fit in self._fits.items() if json.loads(key)[0] == model][:MOST]
        for key, fit in chosen:
            spec = self._spec_of(fit.job_id)
            if spec is None:
                continue
            stage = _stage_of(key, spec)
            yield self._measurement(spec, stage, fit), self._speed(spec, stage, fit)

    def _measurement(self, spec: JobSpec, stage: Stage, fit: Fit) -> Measurement | None:
        parts = self._reckoner.parts(spec, stage)
        if parts is None or not fit.fits or not fit.peak_bytes:
            return None
        return Measurement(job_id=fit.job_id, peak_bytes=fit.peak_bytes, ratio=fit.peak_bytes / parts.shown)

    def _speed(self, spec: JobSpec, stage: Stage, fit: Fit) -> Seen | None:
        if not fit.it_s:
            return None
        return Seen(
            job_id=fit.job_id,
            it_s=fit.it_s,
            tokens=self._reckoner.tokens_per_iteration(spec, stage),
            checkpointing=stage.grad_checkpoint,
            start_s=fit.start_s,
            validation_s=fit.validation_s,
            checkpoint_s=self._checkpoint_s(fit.job_id),
        )

    def _spec_of(self, job_id: int) -> JobSpec | None:
        assert self._store is not None
        try:
            return self._store.spec(job_id)
        except (LqError, ValueError):  # of another version
            return None

    def _checkpoint_s(self, job_id: int) -> float | None:
        assert self._store is not None
        seconds = [one.seconds for one in self._store.metrics.checkpoints(job_id)]
        return statistics.median(seconds) if seconds else None

    def _learn_from(self, store: Store, job: Job) -> None:
        """Take in what a trainer that runs has told so far: its attempt is remembered only when it has ended."""
        spec = self._spec_of(job.id)
        points = store.metrics.points(job.id, superseded=True)
        points = [point for point in points if points and point.attempt == points[-1].attempt]
        if spec is None or not points:
            return
        run_plan = store.run_plans.get(job.id, spec)
        stage = run_plan.stage_at(max(0, points[-1].iteration - 1))
        key, speeds = fit_key(spec, stage), [point.it_s for point in points if point.it_s]
        peak = max(map(_peak, points))
        validations = [one.seconds for one in store.metrics.validations(job.id)]
        now = Fit(
            fits=True,
            peak_bytes=peak or None,
            job_id=job.id,
            it_s=statistics.median(speeds) if speeds else None,
            validation_s=statistics.median(validations) if validations else None,
        )
        before = self._fits.pop(key, None)
        if before is not None:
            now = dataclasses.replace(now, start_s=before.start_s, it_s=now.it_s or before.it_s)
        self._fits = {key: now, **self._fits}


def _peak(point: ProgressPoint) -> int:
    return max(point.peak_bytes or 0, point.footprint_bytes or 0)


def _stage_of(key: str, spec: JobSpec) -> Stage:
    """Return the stage that a fit's key names."""
    *_, batch_size, max_seq_length, grad_checkpoint = json.loads(key)
    asked = RunPlan.requested(spec).stages[0]
    return dataclasses.replace(
        asked, batch_size=batch_size, max_seq_length=max_seq_length, grad_checkpoint=grad_checkpoint
    )
