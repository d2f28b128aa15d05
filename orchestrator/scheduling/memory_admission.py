"""Whether a job fits into memory next to the running ones, if more than one job runs at a time.

What a configuration takes is known from earlier runs, and for a running job also from its own reports. A job of unknown
size runs alone: if two jobs do not fit together, the kernel chooses which one it kills.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jobs.model.configuration import key_of, requested_stage
from jobs.model.job import Job
from jobs.model.memory_limit import limit_bytes, usable_bytes
from jobs.scheduling.obstacles import Obstacle, Why
from orchestrator.estimation.memory import PeakEstimates, recommended_memory
from orchestrator.formatting.text import size

if TYPE_CHECKING:
    from orchestrator.core.app import App

Spec = Mapping[str, Any]


class MemoryAdmission:
    """The memory that the running jobs leave."""

    def __init__(self, app: App, *, slots: int, estimates: PeakEstimates | None = None) -> None:
        """Read which jobs run. Memory matters only if a slot is free while a job runs."""
        self._store = app.store
        self._estimates = estimates or PeakEstimates(app)
        running = self._store.jobs.running()
        running = running if len(running) < slots else []
        self._stages = self._store.run_plans.latest_stages() if running else {}
        self._peaks = {job.id: self._peak_of_running(job) for job in running}
        self._recommended = recommended_memory(self._store)[0] if running else 0

    def obstacle(self, job: Job, spec: Spec) -> Obstacle | None:
        """Return what keeps a job from running together with the others; None if it fits."""
        if not self._peaks:
            return None
        taken = 0
        for running, peak in self._peaks.items():
            if peak is None:
                return Obstacle(why=Why.MEMORY, text=f"the memory that job {running} takes is not known yet")
            taken += peak
        peak = self._known_peak(job, spec)
        if peak is None:
            return Obstacle(why=Why.MEMORY, text="the memory it takes is not known, so it runs alone")
        usable = usable_bytes(limit_bytes(spec["lq"]["memory"]["limit"], self._recommended))
        if taken + peak <= usable:
            return None
        jobs = f"job{'s' if len(self._peaks) > 1 else ''} {', '.join(map(str, self._peaks))}"
        text = f"it takes {size(peak)}, and {jobs} {size(taken)} of the {size(usable)} it may take"
        return Obstacle(why=Why.MEMORY, text=text)

    def _peak_of_running(self, job: Job) -> int | None:
        """Return the bytes that a running job has reported or its configuration is known to take: the larger."""
        spec = json.loads(self._store.jobs.spec_json(job.id))
        known = [self._store.metrics.peak_memory(job.id), self._known_peak(job, spec)]
        return max((peak for peak in known if peak is not None), default=None)

    def _known_peak(self, job: Job, spec: Spec) -> int | None:
        try:
            stage = self._stages.get(job.id) or requested_stage(spec)
            fit = self._store.fits.get(key_of(spec, stage))
        except (KeyError, TypeError):  # another version of lq wrote the spec
            return None
        return fit.peak_bytes if fit is not None and fit.peak_bytes else self._estimates.of(spec, stage)
