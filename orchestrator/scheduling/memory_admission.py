"""Whether a job fits into memory beside those that run, where more than one may run at a time.

What a configuration takes is known from runs before it, and of a running job from what it says itself. A job of which
nothing is known runs alone: two that do not fit together end in the kernel's choice of which one dies.
"""

from __future__ import annotations

from collections.abc import Callable

from jobs.model.configuration import fit_key
from jobs.model.job import Job
from jobs.model.memory_limit import limit_bytes, usable_bytes
from jobs.model.run_plan import Stage
from jobs.model.spec import JobSpec
from jobs.scheduling.obstacles import Obstacle, Why
from orchestrator.formatting.text import size
from orchestrator.store.queue import WaitingJob
from orchestrator.store.store import Store

Reckoned = Callable[[JobSpec, Stage], int | None]


class MemoryAdmission:
    """The memory beside what runs now."""

    def __init__(self, store: Store, recommended: Callable[[], int], reckoned: Reckoned = lambda _, __: None) -> None:
        """Look at what runs.

        Args:
            store: the truth.
            recommended: returns what the machine recommends to take in all, in bytes; asked only where something runs.
            reckoned: returns what a configuration that never ran will take at most, in bytes; None where that cannot
                be told. Asked only where something runs.
        """
        self._store, self._estimated = store, reckoned
        self._recommended = recommended
        self._running = [(job, self._takes(job)) for job in store.jobs.running()]

    def __call__(self, waiting: WaitingJob) -> Obstacle | None:
        """Say what keeps a job from running beside the others; None where nothing does."""
        if not self._running:
            return None
        unknown = next((job for job, takes in self._running if takes is None), None)
        if unknown is not None:
            return _obstacle(f"what job {unknown.id} takes of the memory is not known yet")
        spec = JobSpec.model_validate_json(waiting.spec_json)
        needs = self._known(waiting.job, spec)
        if needs is None:
            return _obstacle("what it takes of the memory is not known, so it runs alone")
        taken = sum(takes or 0 for _, takes in self._running)
        usable = usable_bytes(limit_bytes(spec.lq.memory.limit, self._recommended()))
        if taken + needs <= usable:
            return None
        what = "job" if len(self._running) == 1 else "jobs"
        ids = ", ".join(str(job.id) for job, _ in self._running)
        return _obstacle(f"it takes {size(needs)}, and {what} {ids} {size(taken)} of the {size(usable)} it may take")

    def _takes(self, job: Job) -> int | None:
        """Return the most a running job took as far as it said, or its configuration took before, in bytes."""
        spec = self._store.spec(job.id)
        known = [self._store.metrics.peak_memory(job.id), self._known(job, spec)]
        return max((one for one in known if one is not None), default=None)

    def _known(self, job: Job, spec: JobSpec) -> int | None:
        stage = self._store.run_plans.get(job.id, spec).stages[-1]
        fit = self._store.fits.get(fit_key(spec, stage))
        return fit.peak_bytes if fit is not None and fit.peak_bytes else self._estimated(spec, stage)


def _obstacle(text: str) -> Obstacle:
    return Obstacle(why=Why.MEMORY, text=text)
