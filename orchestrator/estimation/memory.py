"""The memory of this machine and the peaks of configurations, from the store."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jobs.model.configuration import fit_key, key_of
from jobs.model.run_plan import RunPlan, Stage
from jobs.policies import oom
from orchestrator.estimation.history import shown_by
from workers.system import memory

if TYPE_CHECKING:
    from jobs.model.spec import JobSpec
    from orchestrator.core.app import App
    from orchestrator.store.store import Store

MAC_SHARE = 0.75
"""The share of a Mac's memory that Metal recommends to take at most; used until a job has reported its limit."""


def recommended_memory(store: Store | None, platform: str = sys.platform) -> tuple[int, str]:
    """Return the bytes that the device recommends to take at most, and their source.

    The trainer asks MLX, which must not be imported here. On a Mac, the limit that an earlier job reported is used.
    """
    allowed = memory.allowed_memory()
    if platform != "darwin":
        return allowed, "what the system allows"
    for job in reversed(store.jobs.overview(ended=20)) if store is not None else ():
        assert store is not None
        limits = [point.limit_bytes for point in store.status.recent_points(job.id, 1) if point.limit_bytes]
        limit = json.loads(store.jobs.spec_json(job.id))["lq"]["memory"]["limit"] if limits else None
        if isinstance(limit, str):
            return int(limits[-1] / (float(limit.rstrip("%")) / 100)), f"as reported by job {job.id}"
    return int(MAC_SHARE * allowed), f"{MAC_SHARE:.0%} of its memory; no job has run yet"


class PeakEstimates:
    """The peak memory of configurations that never ran, each estimated once: that reads the model and the data."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._peaks: dict[str, int | None] = {}

    def of(self, spec: Mapping[str, Any], stage: Stage) -> int | None:
        """Return the upper end of the estimate in bytes; None if the model is not on this machine."""
        key = key_of(spec, stage)
        if key not in self._peaks:
            from jobs.model.spec import JobSpec
            from orchestrator.estimation.estimator import Estimator

            estimator = Estimator(self._app.store, self._app.home.lengths)
            memory = estimator.memory(JobSpec.model_validate(spec), stage)
            self._peaks[key] = memory.high if memory is not None else None
        return self._peaks[key]


def smaller_stage(store: Store, spec: JobSpec) -> Stage | None:
    """Return the first step of the out-of-memory ladder that has not run out of memory before.

    None if the requested settings have not, or if every step has: then the run itself reports it, with numbers.
    """
    requested = RunPlan.requested(spec).stages[0]
    fit = store.fits.get(fit_key(spec, requested))
    if fit is None or fit.fits:
        return None
    for stage, _ in oom.ladder(requested, allow_truncation=False):
        known = store.fits.get(fit_key(spec, stage))
        if known is None or known.fits:
            change = (
                f"batch {spec.batch_size} -> {stage.batch_size}, accumulation {spec.grad_accumulation_steps} -> "
                f"{stage.grad_accumulation_steps}, gradient checkpointing {'on' if stage.grad_checkpoint else 'off'}"
            )
            return dataclasses.replace(stage, because=f"out_of_memory in {shown_by(fit)}: {change}")
        fit = known
    return None
