"""The speed and the memory that runs have shown, from the store alone: light enough for `lq status`."""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Mapping
from datetime import tzinfo
from typing import TYPE_CHECKING, Any

from jobs.estimates.estimate import Source, TimeEstimate
from jobs.estimates.run_time import RunLength, Speed, time_left
from jobs.model import time_windows
from jobs.model.configuration import key_of, requested_stage
from jobs.model.job import Fit, Job
from jobs.model.run_plan import Stage
from jobs.scheduling.constraints import constraints_of

if TYPE_CHECKING:
    from orchestrator.store.store import Store

RECENT = 20  # the speed of a running attempt is the median of this many last reports

Spec = Mapping[str, Any]
"""A spec as the store keeps it, read as JSON."""


class RunHistory:
    """What the store knows of configurations, including what running attempts have shown so far."""

    def __init__(self, store: Store) -> None:
        """Read the store; the values do not change afterwards."""
        self._store = store
        self._stages = store.run_plans.latest_stages()
        self._seconds_of = functools.cache(self._median_seconds)
        self._running: dict[int, Fit] = {}  # attempts that have reported, by job
        self.fits = store.fits.all()  # by configuration, the last seen first
        for job in store.jobs.running():
            self._learn_from(job)

    def _learn_from(self, job: Job) -> None:
        """Add what a running attempt has shown; the store remembers its configuration only when it has ended."""
        points = [point for point in self._store.status.recent_points(job.id, RECENT) if point.attempt == job.attempts]
        speeds = [point.it_s for point in points if point.it_s]
        if not points or not speeds:
            return
        spec = json.loads(self._store.jobs.spec_json(job.id))
        try:
            key = key_of(spec, self.stage(job.id, spec))
        except (KeyError, TypeError):  # another version of lq wrote the spec
            return
        before = self.fits.pop(key, None)
        fit = Fit(
            fits=True,
            peak_bytes=self._store.metrics.peak_memory(job.id),
            job_id=job.id,
            it_s=statistics.median(speeds),
            start_s=before.start_s if before is not None else None,
            validation_s=self._seconds_of(job.id)[0] or (before.validation_s if before is not None else None),
        )
        self._running[job.id] = fit
        self.fits = {key: fit, **self.fits}

    def stage(self, job_id: int, spec: Spec) -> Stage:
        return self._stages.get(job_id) or requested_stage(spec)

    def fit(self, spec: Spec, stage: Stage) -> Fit | None:
        """Return what runs of a configuration have shown; None if it never ran."""
        return self.fits.get(key_of(spec, stage))

    def speed(self, spec: Spec, stage: Stage) -> Speed | None:
        """Return the speed of a configuration; None if no run of it has shown one."""
        fit = self.fit(spec, stage)
        if fit is None or not fit.it_s:
            return None
        source = Source.SAME_SETTINGS if fit.job_id else Source.DRY_RUN
        return self._speed_of(fit, source, f"{shown_by(fit)} with the same settings")

    def _speed_of(self, fit: Fit, source: Source, because: str) -> Speed:
        assert fit.it_s is not None
        return Speed(
            it_s=fit.it_s,
            start_s=fit.start_s or 0.0,
            validation_s=fit.validation_s or 0.0,
            checkpoint_s=self.checkpoint_s(fit.job_id) or 0.0,
            source=source,
            because=because,
        )

    def time_left(self, job: Job, spec: Spec) -> TimeEstimate | None:
        """Estimate the time a job has left; None if neither it nor its configuration has shown a speed."""
        try:
            length, stage = RunLength.of(spec), self.stage(job.id, spec)
            fit = self._running.get(job.id)
            if fit is None:
                speed = self.speed(spec, stage)
            else:
                speed = self._speed_of(fit, Source.MEASURED, f"measured by attempt {job.attempts} of this job")
        except (KeyError, TypeError):  # another version of lq wrote the spec
            return None
        return time_left(length, speed, iteration=job.iteration, running=fit is not None) if speed is not None else None

    def ends_at(self, job: Job, spec: Spec, *, now: float, zone: tzinfo | None) -> float | None:
        """Return when a running job will be done, in unix seconds; None if unknown."""
        left = self.time_left(job, spec)
        if left is None:
            return None
        return time_windows.ends_after(constraints_of(spec).window, now, left.expected_s, zone)

    def checkpoint_s(self, job_id: int) -> float | None:
        """Return the seconds that a checkpoint of a job takes; None if it has written none."""
        return self._seconds_of(job_id)[1]

    def _median_seconds(self, job_id: int) -> tuple[float | None, float | None]:
        """Return the median seconds of a job's last validations and checkpoints; None if there are none."""
        validations, checkpoints = self._store.status.recent_seconds(job_id, RECENT)
        return _median(validations), _median(checkpoints)


def shown_by(fit: Fit) -> str:
    """Return what showed it: a job, or `lq check` of a file."""
    return f"job {fit.job_id}" if fit.job_id else "lq check"


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None
