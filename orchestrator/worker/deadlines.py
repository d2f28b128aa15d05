"""Tells, once and as soon as it is known, that a job will miss its deadline."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator

from jobs.model.events import Event, Kind
from jobs.model.job import Incident, Job
from jobs.model.spec import JobSpec
from jobs.scheduling.constraints import Constraints, constraints_of
from jobs.scheduling.deadline import FEWEST_REPORTS, late
from orchestrator.core import cli_subprocess
from orchestrator.core.app import App
from orchestrator.core.context import WorkerContext
from orchestrator.estimation.history import RunHistory
from orchestrator.formatting.text import short_time
from orchestrator.notify.job_notifications import JobNotifications
from orchestrator.store.queue import WaitingJob

CODE = "deadline"
PLAN_EVERY_S, PLAN_TIMEOUT_S = 600.0, 120.0

log = logging.getLogger("lq.lateness")


class Forecast:
    """Of a job that trains."""

    def __init__(self, context: WorkerContext, job: Job, spec: JobSpec, constraints: Constraints) -> None:
        """Begin with an attempt.

        Args:
            context: store and clocks.
            job: the job.
            spec: what was asked for.
            constraints: of the job.
        """
        self._context, self._job, self._spec, self._constraints = context, job, spec, constraints
        self._due = constraints.due(job.submitted_at, context.zone)
        self._reports = 0

    def take(self, events: Iterable[Event]) -> None:
        """Count the trainer's reports; report once the deadline will be missed."""
        new = sum(event.kind is Kind.PROGRESS and bool(event.data.get("losses")) for event in events)
        self._reports += new
        if self._due is None or not new or self._reports < FEWEST_REPORTS:
            return
        store = self._context.app.store
        left = RunHistory(store).time_left(store.jobs.get(self._job.id), self._spec.model_dump(mode="json"))
        if left is None:
            return
        left_s = left.expected_s
        now, zone = self._context.clock(), self._context.zone
        found = late(self._due, now=now, left_s=left_s, window=self._constraints.window, zone=zone)
        if found is not None:
            self._due = None
            _tell(self._context, self._job, self._spec, due=found.due, expected=found.expected)


class DeadlineWatch:
    """Over the jobs that wait for their turn: the plan of the queue is made anew every ten minutes, where one has a
    deadline that is not lost yet. A process of its own makes it: it reads models and data.
    """

    def __init__(self, context: WorkerContext) -> None:
        """Begin with nothing known.

        Args:
            context: store and clocks.
        """
        self._context = context
        self._planned_at = float("-inf")

    def look(self) -> None:
        """Tell of the jobs in the line whose deadline is lost."""
        context = self._context
        due = list(self._due())
        if not due or context.awake() - self._planned_at < PLAN_EVERY_S:
            return
        self._planned_at = context.awake()
        ends = planned_ends(context.app)
        for waiting, at in due:
            now, end = context.clock(), ends.get(waiting.job.id)
            left_s = max(0.0, (end or now) - now)
            if late(at, now=now, left_s=left_s, window=None, zone=context.zone) is not None:
                spec = JobSpec.model_validate_json(waiting.spec_json)
                _tell(context, waiting.job, spec, due=at, expected=end)

    def _due(self) -> Iterator[tuple[WaitingJob, float]]:
        """Yield the jobs of the line whose deadline is not told as lost yet, and when that is, in unix seconds."""
        context = self._context
        for waiting in context.app.store.queue.waiting():
            at = constraints_of(json.loads(waiting.spec_json)).due(waiting.job.submitted_at, context.zone)
            if at is not None and not _told(context, waiting.job.id, at):
                yield waiting, at


def planned_ends(app: App) -> dict[int, float]:
    """Return when each job of the queue will end, by id, where that is known; unix seconds."""
    plan = cli_subprocess.answer(app.home, "plan", timeout_s=PLAN_TIMEOUT_S)
    jobs = plan["jobs"] if plan is not None else ()
    return {int(job["id"]): float(job["end"]) for job in jobs if job["end"] is not None}


def _told(context: WorkerContext, job_id: int, due: float) -> bool:
    incidents = context.app.store.incidents.of(job_id)
    return any(one.code == CODE and one.evidence.get("due") == due for one in incidents)


def _tell(context: WorkerContext, job: Job, spec: JobSpec, *, due: float, expected: float | None) -> None:
    """Put the message into the outbox and record it; in this order, so that a death between the two loses neither.

    Args:
        context: store and clocks.
        job: the job.
        spec: what was asked for.
        due: its deadline, in unix seconds.
        expected: when it will be done, in unix seconds; None where nobody knows.
    """
    if _told(context, job.id, due):
        return
    JobNotifications(context.app, job, spec).tell_late(deadline=due, expected=expected, zone=context.zone)
    by, now = short_time(due, context.clock(), context.zone), context.clock()
    then = f"at its speed done at {short_time(expected, now, context.zone)}" if expected is not None else "not done"
    told = Incident(
        job_id=job.id,
        attempt=job.attempts or None,
        time=now,
        code=CODE,
        text=f"wanted by {by}, and {then}",
        evidence={"due": due, "expected": expected},
    )
    context.app.store.incidents.add(told)
    log.warning("job %d: %s", job.id, told.text)
