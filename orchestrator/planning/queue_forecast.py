"""When the jobs that wait for their turn will start, by what their configurations took before. Light: `lq status` asks.

`lq plan` knows more: it reckons what was never run, and reads the model and the data for that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import tzinfo
from typing import TYPE_CHECKING, Any

from jobs.model.configuration import key_of
from jobs.model.job import Fit, Job
from jobs.model.run_plan import Stage
from jobs.model.states import Status
from jobs.scheduling.constraints import constraints_of
from jobs.scheduling.timeline import Ahead, Placed, timeline

if TYPE_CHECKING:
    from orchestrator.store.store import Store


def starts(store: Store, *, now: float, slots: int, zone: tzinfo | None = None) -> dict[int, Placed]:
    """Return when each job that runs or waits for its turn will start and end, by id, as far as that is known.

    Args:
        store: the truth.
        now: unix seconds.
        slots: jobs at a time.
        zone: whose hours windows are; None for the machine's own zone.
    """
    fits, stages, awaited = store.fits.all(), store.run_plans.latest_stages(), store.dependencies.awaited()
    ahead = [Ahead(id=job.id, seconds=job.eta_seconds, running=True) for job in store.jobs.running()]
    for waiting in store.queue.waiting():
        job, spec = waiting.job, json.loads(waiting.spec_json)
        constraints = constraints_of(spec)
        ahead.append(
            Ahead(
                id=job.id,
                seconds=_seconds(job, spec, stages.get(job.id), fits),
                not_before=job.not_before if job.status is Status.WAITING else None,
                window=constraints.window,
                after=awaited.get(job.id, ()),
                strict=constraints.strict,
                deadline=constraints.due(job.submitted_at, zone),
            )
        )
    return {placed.id: placed for placed in timeline(ahead, now=now, slots=slots, zone=zone)}


def _seconds(job: Job, spec: Mapping[str, Any], stage: Stage | None, fits: Mapping[str, Fit]) -> float | None:
    """Return how long a job will train, in seconds; None where its configuration never ran."""
    try:
        fit = fits.get(key_of(spec, stage or _asked(spec)))
        steps_per_eval = int(spec["steps_per_eval"])
    except (KeyError, TypeError):  # of another version
        return None
    if fit is None or not fit.it_s:
        return None
    left = max(0, job.iters - job.iteration)
    validations = math.ceil(left / steps_per_eval) + (job.iteration == 0)
    return left / fit.it_s + (fit.start_s or 0.0) + validations * (fit.validation_s or 0.0)


def _asked(spec: Mapping[str, Any]) -> Stage:
    """Return the stage a job begins on."""
    names = ("batch_size", "grad_accumulation_steps", "grad_checkpoint", "max_seq_length")
    return Stage(first_example=0, **{name: spec[name] for name in names})
