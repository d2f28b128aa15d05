"""Pauses the queue for a cause of the machine, and resumes it when the check of `lq doctor` passes again."""

from __future__ import annotations

import logging
from typing import Any

from jobs.model.job import Attempt
from jobs.model.outcomes import Outcome
from jobs.policies.machine import MachineCause, machine_cause
from orchestrator.core import cli_subprocess
from orchestrator.core.context import WorkerContext
from orchestrator.notify.publisher import JobNotifications
from orchestrator.worker.decide import AttemptResult

SAME_CAUSE_S = 600.0  # two crashes within this time may have one cause
DOCTOR_TIMEOUT_S = 120.0

log = logging.getLogger("lq.queue")


def shared_cause(context: WorkerContext, result: AttemptResult) -> tuple[MachineCause, str] | None:
    """Return the cause of the machine that two jobs crashed for before they trained, and one line about it.

    A job that succeeds or trains in between shows that the machine works.
    """
    store, home, job = context.app.store, str(context.app.home.path), result.job
    cause = machine_cause(result.attempt, home)
    if cause is None or result.health.trained:
        return None
    for other in store.attempts.recent(since=context.clock() - SAME_CAUSE_S):
        trained = (other.last_iteration or 0) > (other.first_iteration or 0)
        if trained or other.outcome == Outcome.DONE:
            return None
        if other.job_id != job.id and machine_cause(other, home) is cause:
            if _error(other, store.jobs.get(other.job_id).job_dir) != _error(result.attempt, job.job_dir):
                return None
            first, second = sorted((other.job_id, job.id))
            return cause, f"jobs {first} and {second} crashed before they trained: {result.attempt.detail}"
    return None


def _error(attempt: Attempt, job_dir: str) -> str:
    return (attempt.detail or "").replace(job_dir, "")


def pause_for_machine(context: WorkerContext, result: AttemptResult, notifications: JobNotifications) -> None:
    """Pause the queue if the machine keeps jobs from training, and `lq doctor` finds the same."""
    found = shared_cause(context, result)
    check = _check(context, found[0]) if found is not None else None
    if found is None or check is None or check["state"] != "fail":
        return
    cause, because = found
    because, now = f"{because}; lq doctor: {cause} {check['says']}", context.clock()
    if context.app.store.queue.pause(because, now, notifications.queue_paused(because, now), cause=cause):
        log.warning("the queue is paused: %s", because)


def resume_if_repaired(context: WorkerContext) -> None:
    """Resume a queue that was paused for a cause of the machine, if its check does not fail any more."""
    cause = context.app.store.queue.state().cause
    check = _check(context, cause) if cause is not None else None
    if check is not None and check["state"] != "fail" and context.app.store.queue.resume(cause=cause):
        log.info("the queue resumes: %s %s", cause, check["says"])
        context.app.wakeup.wake()


def _check(context: WorkerContext, name: str) -> dict[str, Any] | None:
    """Return what a check of `lq doctor` finds now; None if that is unknown."""
    report = cli_subprocess.json_of(context.app.home, "doctor", timeout_s=DOCTOR_TIMEOUT_S)
    checks = (report or {}).get("checks", ())
    return next((check for check in checks if check["name"] == name), None)
