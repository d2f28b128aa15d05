"""What a finished job gets: its adapter laid out, its report written. Doing it twice changes nothing."""

from __future__ import annotations

import logging
import subprocess
import sys

from jobs.model.errors import CheckpointInvalid
from jobs.model.job import Job
from jobs.model.outcomes import Reason
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.policies.after_attempt import DISK_CHECK_S
from jobs.policies.decision import Decision
from orchestrator.core.paths import Home
from workers.checkpoints import adapters
from workers.system import disk

REPORT_TIMEOUT_S = 300.0

log = logging.getLogger("lq.finish")

Note = tuple[str, str]
"""Code and text of an incident."""


def publish(
    job: Job, spec: JobSpec, run_plan: RunPlan, decision: Decision, *, now: float
) -> tuple[Decision, list[Note]]:
    """Lay out the adapter; a run whose checkpoints do not verify has not succeeded, one without space for it not yet.

    Returns:
        The decision, changed where nothing could be published, and what the report must mention.
    """
    folder = job.dir
    try:
        published = adapters.publish(folder, spec, run_plan, job_id=job.id, until=decision.publish_until)
    except CheckpointInvalid as error:
        if decision.status is Status.FAILED:
            return decision, [("not_published", str(error))]
        failed = Decision(status=Status.FAILED, reason=Reason.CRASHED, detail=str(error))
        return failed, [("not_published", str(error))]
    except OSError as error:
        if not disk.has_space_for(folder):
            return _not_yet(now)
        text = f"the adapter could not be published ({error.strerror}: {error.filename}); see {folder.checkpoints}"
        return decision, [("not_published", text)]
    notes = [("checkpoint_invalid", text) for text in published.bad]
    if published.set_aside is not None:
        text = f"{published.copied_to} held an adapter that is not this job's; it was moved to {published.set_aside}"
        notes.append(("adapter_set_aside", text))
    return decision, notes


def _not_yet(now: float) -> tuple[Decision, list[Note]]:
    """Wait for space; the next attempt finds the run at its end, and is published."""
    text = "trained to the end, but the disk is too full to publish the adapter; goes on when there is space"
    waiting = Decision(status=Status.WAITING, reason=Reason.DISK_FULL, detail=text, not_before=now + DISK_CHECK_S)
    return waiting, [(Reason.DISK_FULL.value, text)]


def write_report(home: Home, job: Job, decision: Decision) -> list[Note]:
    """Have the report written by a process of its own, so that its memory is not the worker's."""
    if not job.dir.path.is_dir():
        return []  # the user took it away, and the decision says so
    command = [sys.executable, "-P", "-m", "orchestrator.report", str(home.path), str(job.id)]
    command += ["--as-status", decision.status.value]
    command += ["--as-reason", decision.reason.value] if decision.reason else []
    command += [f"--as-detail={decision.detail}"] if decision.detail else []
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=REPORT_TIMEOUT_S, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = type(error).__name__
    else:
        if done.returncode == 0:
            return []
        problem = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    log.error("job %d: no report: %s", job.id, problem)
    return [("no_report", f"the report could not be written: {problem}; try: lq report {job.id}")]
