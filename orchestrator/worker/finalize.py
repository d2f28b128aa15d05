"""Publishes the adapter of a finished job and writes its report. Running it twice changes nothing."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jobs.model.errors import CheckpointInvalid
from jobs.model.job import Job
from jobs.model.job_dir import JobDir
from jobs.model.outcomes import Reason
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.policies.decision import Decision
from jobs.policies.disk import wait_for_space
from orchestrator.core.paths import Home
from workers.checkpoints import adapters
from workers.system import disk

REPORT_TIMEOUT_S = 300.0

log = logging.getLogger("lq.finalize")


class Note(NamedTuple):
    """What becomes an incident of the attempt."""

    code: str
    text: str
    evidence: Mapping[str, Any]


def publish(
    job: Job, spec: JobSpec, run_plan: RunPlan, decision: Decision, *, now: float
) -> tuple[Decision, list[Note]]:
    """Publish the adapter of a job that succeeded, or that failed with an iteration to publish until.

    A run without a valid checkpoint fails; one without disk space for its adapter waits.
    """
    folder = job.dir
    try:
        published = adapters.publish(folder, spec, run_plan, job_id=job.id, until=decision.publish_until)
    except CheckpointInvalid as error:
        if decision.status is not Status.FAILED:
            decision = Decision(status=Status.FAILED, reason=Reason.CRASHED, detail=str(error))
        return decision, [_not_published(folder, str(error))]
    except OSError as error:
        space = disk.space_for(folder, floor=0)
        if space is not None and not space.enough:  # the next attempt starts at the end of the run and publishes
            text = "training is complete, but the disk has no space for the adapter; lq publishes it then"
            decision = wait_for_space(text, space.evidence, now=now)
            return decision, [Note(Reason.DISK_FULL, text, decision.evidence)]
        return decision, [_not_published(folder, f"{error.strerror}: {error.filename}")]
    notes = [Note("checkpoint_invalid", error, {"error": error}) for error in published.bad]
    if published.set_aside is not None:
        text = f"{published.copied_to} contained the adapter of another run; lq moved it to {published.set_aside}"
        moved = {"path": str(published.copied_to), "moved_to": str(published.set_aside)}
        notes.append(Note("adapter_set_aside", text, moved))
    return decision, notes


def _not_published(folder: JobDir, error: str) -> Note:
    text = f"the adapter could not be published ({error}); the checkpoints are in {folder.checkpoints}"
    return Note("not_published", text, {"error": error, "checkpoints": str(folder.checkpoints)})


def write_report(home: Home, job: Job, decision: Decision | None = None) -> list[Note]:
    """Write the report in a child process, so that it does not use the worker's memory.

    Args:
        decision: the end of the job, which the store does not have yet; None if it has.
    """
    if not Path(job.job_dir).is_dir():
        return []  # the user deleted the folder; the decision reports it
    command = [sys.executable, "-P", "-m", "orchestrator.report", str(home.path), str(job.id)]
    if decision is not None:
        command += [f"--as-status={decision.status}", f"--as-detail={decision.detail}"]
        command += [f"--as-reason={decision.reason}"] if decision.reason else []
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=REPORT_TIMEOUT_S, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = f"{type(error).__name__}: {error}"
    else:
        if done.returncode == 0:
            return []
        problem = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    log.error("job %d: no report: %s", job.id, problem)
    text = f"the report could not be written: {problem}; try: lq report {job.id}"
    return [Note("no_report", text, {"error": problem})]
