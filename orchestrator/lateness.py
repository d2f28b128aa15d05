"""Tells, once and as soon as it is known, that a job will miss its deadline."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from jobs.events import Event, Kind
from jobs.job import Incident, Job
from jobs.lateness import Late, Pace, late
from jobs.spec import JobSpec
from jobs.terms import Terms
from orchestrator.messages import clock
from orchestrator.night import Night
from orchestrator.schedule import Turn
from orchestrator.telling import Teller

CODE = "deadline"

log = logging.getLogger("lq.lateness")


class Forecast:
    """Of a job that trains."""

    def __init__(self, night: Night, job: Job, spec: JobSpec, terms: Terms) -> None:
        """Begin with an attempt.

        Args:
            night: store and clocks.
            job: the job.
            spec: what was asked for.
            terms: of the job.
        """
        self._night, self._job, self._spec, self._terms = night, job, spec, terms
        self._due = terms.due(job.submitted_at, night.zone)
        self._pace = Pace()
        self._iteration = job.iteration

    def take(self, events: Iterable[Event]) -> None:
        """Fold in what the trainer says, and tell where the deadline is lost."""
        if self._due is None:
            return
        for event in events:
            if event.kind is Kind.PROGRESS and event.data.get("losses"):
                self._iteration = int(event.data["iteration"])
                self._pace.take(self._iteration, event.awake)
        seconds = self._pace.seconds
        if seconds is None:
            return
        left_s = seconds * (self._spec.iters - self._iteration)
        now, zone = self._night.clock(), self._night.zone
        found = late(self._due, now=now, left_s=left_s, window=self._terms.window, zone=zone)
        if found is not None:
            self._due = None
            _tell(self._night, self._job, self._spec, found, left_s)


def tell_of_waiting(night: Night, found: Sequence[Turn]) -> None:
    """Tell of the jobs in the line whose deadline is lost.

    Args:
        night: store and clocks.
        found: the line.
    """
    now = night.clock()
    for turn in found:
        due = turn.terms.due(turn.job.submitted_at, night.zone)
        if due is None:
            continue
        spec = JobSpec.model_validate_json(night.app.store.spec_json(turn.job.id))
        left_s = _known_s(night, turn.job, spec)
        lost = late(due, now=now, left_s=left_s, window=turn.terms.window, zone=night.zone)
        if lost is not None:
            _tell(night, turn.job, spec, lost, left_s)


def _known_s(night: Night, job: Job, spec: JobSpec) -> float:
    """Return how long a job will train at least, in seconds, by its configuration's speed; 0 where that is unknown."""
    from orchestrator.judgement import fit_key

    store = night.app.store
    fit = store.fit(fit_key(spec, store.course(job.id, spec).legs[-1]))
    return (spec.iters - job.iteration) / fit.it_s if fit is not None and fit.it_s else 0.0


def _tell(night: Night, job: Job, spec: JobSpec, found: Late, left_s: float) -> None:
    """Record it and put the message into the outbox, unless both were done before."""
    store = night.app.store
    if any(one.code == CODE and one.evidence.get("due") == found.due for one in store.incidents(job.id)):
        return
    by, then = (clock(moment, night.clock(), night.zone) for moment in (found.due, found.expected))
    text = f"wanted by {by}, and at its speed done at {then}"
    evidence = {"due": found.due, "expected": round(found.expected, 1), "left_s": round(left_s, 1)}
    told = Incident(
        job_id=job.id,
        attempt=job.attempts or None,
        time=night.clock(),
        code=CODE,
        text=text,
        evidence=evidence,
    )
    store.add_incident(told)
    log.warning("job %d: %s", job.id, text)
    Teller(night.app, job, spec).tell_late(deadline=found.due, expected=found.expected, zone=night.zone)
