"""Reports, once and as early as possible, that a job will miss its deadline."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator

from jobs.model.events import Event, ProgressEvent, values_of
from jobs.model.job import Incident, Job
from jobs.model.spec import JobSpec
from jobs.scheduling.constraints import FEWEST_REPORTS, Constraints, constraints_of, late
from orchestrator.core import cli_subprocess
from orchestrator.core.context import WorkerContext
from orchestrator.estimation.history import RunHistory
from orchestrator.notify.messages import missed_deadline
from orchestrator.notify.publisher import JobNotifications
from orchestrator.store.queue import WaitingJob

CODE = "deadline"
PLAN_EVERY_S, PLAN_TIMEOUT_S = 600.0, 120.0

log = logging.getLogger("lq.deadlines")


class DeadlineForecast:
    """Compares the pace of a job that trains with its deadline."""

    def __init__(self, context: WorkerContext, job: Job, spec: JobSpec, constraints: Constraints) -> None:
        self._context, self._job, self._spec, self._constraints = context, job, spec, constraints
        self._due = constraints.due(job.submitted_at, context.zone)
        self._reports = 0

    def take(self, events: Iterable[Event]) -> None:
        """Count the trainer's reports, and report if the deadline will be missed."""
        new = sum(bool(progress.losses) for progress in values_of(events, ProgressEvent))
        self._reports += new
        if self._due is None or not new or self._reports < FEWEST_REPORTS:
            return
        store = self._context.app.store
        left = RunHistory(store).time_left(store.jobs.get(self._job.id), self._spec.model_dump(mode="json"))
        if left is None:
            return
        now, zone = self._context.clock(), self._context.zone
        expected = late(self._due, now=now, left_s=left.expected_s, window=self._constraints.window, zone=zone)
        if expected is not None:
            _report(self._context, self._job, self._spec, due=self._due, expected=expected)
            self._due = None


class DeadlineWatch:
    """Compares the planned ends of queued jobs with their deadlines, every ten minutes.

    A child process plans the queue, because planning reads models and data.
    """

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._planned_at = float("-inf")

    def check(self) -> None:
        context = self._context
        due = list(self._due())
        if not due or context.awake() - self._planned_at < PLAN_EVERY_S:
            return
        self._planned_at = context.awake()
        plan = cli_subprocess.json_of(context.app.home, "plan", timeout_s=PLAN_TIMEOUT_S)
        ends = {int(job["id"]): job["end"] for job in plan["jobs"]} if plan is not None else {}
        for waiting, at in due:
            now, end = context.clock(), ends.get(waiting.job.id)
            left_s = max(0.0, (end or now) - now)
            if late(at, now=now, left_s=left_s, window=None, zone=context.zone) is not None:
                _report(context, waiting.job, waiting.spec, due=at, expected=end)

    def _due(self) -> Iterator[tuple[WaitingJob, float]]:
        """Yield the queued jobs with a deadline that is not reported yet, and the deadline in unix seconds."""
        context = self._context
        for waiting in context.app.store.queue.waiting():
            at = constraints_of(json.loads(waiting.spec_json)).due(waiting.job.submitted_at, context.zone)
            if at is not None and not _is_reported(context, waiting.job.id, at):
                yield waiting, at


def _is_reported(context: WorkerContext, job_id: int, due: float) -> bool:
    incidents = context.app.store.incidents.of(job_id)
    return any(incident.code == CODE and incident.evidence.get("due") == due for incident in incidents)


def _report(context: WorkerContext, job: Job, spec: JobSpec, *, due: float, expected: float | None) -> None:
    """Publish the message, then add the incident: in this order a crash between the two loses neither."""
    if _is_reported(context, job.id, due):
        return
    now, zone = context.clock(), context.zone
    JobNotifications(context.app, job, spec).publish_late(deadline=due, expected=expected, now=now, zone=zone)
    incident = Incident(
        job_id=job.id,
        attempt=job.attempts or None,
        time=now,
        code=CODE,
        text=missed_deadline(due, expected, beside=now, zone=zone),
        evidence={"due": due, "expected": expected},
    )
    context.app.store.incidents.add(incident)
    log.warning("job %d: %s", job.id, incident.text)
