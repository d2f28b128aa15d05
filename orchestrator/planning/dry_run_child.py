"""One dry run: a child process in a folder of its own; both are removed in every case.

The child is supervised as a trainer is (workers/process/supervisor.py), and its end is classified as a trainer's
(jobs/policies/exits.py).
"""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from configs.load import dump_job
from jobs.model import run_plan as run_plans
from jobs.model.events import Event, WarningEvent, values_of
from jobs.model.job_dir import JobDir
from jobs.model.outcomes import Ending
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.policies import exits
from jobs.policies.attempt_health import AttemptHealth
from orchestrator.core.paths import Home
from workers.events import log as event_log
from workers.files.atomic import write_atomically, write_json
from workers.process import supervisor
from workers.process.lock import Held, LockFile, holder
from workers.process.supervisor import Child
from workers.system import memory

PREFIX = ".check-"
LOOK_S = 0.05
STOP_GRACE_S = 20.0
STALE_S = 60.0  # an unlocked folder of this age belonged to an `lq check` that was killed together with its child

_LOCK = "check.lock"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChildRun:
    """The events of a child, and how it ended."""

    began: float  # when it was started, on the clock that stops in sleep
    events: Sequence[Event]
    ending: Ending


def run_child(home: Home, spec: JobSpec, run_plan: RunPlan, *, at: int, saves: bool, timeout_s: float) -> ChildRun:
    """Do a dry run from iteration `at` on. A checkpoint, if there is space, is written to the disk of `home`."""
    arguments = ["--at", str(at), *([] if saves else ["--no-checkpoint"])]
    if home.path.is_dir():
        arguments += ["--cache", str(home.cache)]  # the run itself will find its tokens there
    with _folder(home, spec, run_plan) as job_dir:
        child_run = _supervised(job_dir, spec, arguments, timeout_s=timeout_s)
        if any(warning.code == "torn_kernel" for warning in values_of(child_run.events, WarningEvent)):
            job_dir.events.unlink()  # the damaged kernel is removed, and compiled again, as in a job's next attempt
            child_run = _supervised(job_dir, spec, arguments, timeout_s=timeout_s)
        return child_run


@contextmanager
def _folder(home: Home, spec: JobSpec, run_plan: RunPlan) -> Iterator[JobDir]:
    """Make a folder like a job's, on the disk of the jobs, and remove it at the end."""
    parent = home.path if home.path.is_dir() else None
    for left in parent.glob(f"{PREFIX}*") if parent is not None else ():
        with suppress(OSError, Held):
            if time.time() - left.stat().st_mtime > STALE_S and holder(left / _LOCK) is None:
                shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    try:
        lock = LockFile.take(folder / _LOCK)
        try:
            job_dir = JobDir(folder)
            write_atomically(job_dir.config, dump_job(spec))
            write_json(job_dir.run_plan, run_plans.to_json(run_plan))
            yield job_dir
        finally:
            lock.release()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _supervised(job_dir: JobDir, spec: JobSpec, arguments: Sequence[str], *, timeout_s: float) -> ChildRun:
    """Run the child and classify its end; no process of it is left in any case."""
    killed_before, began = memory.kernel_oom_kills() or 0, time.monotonic()
    health, stall = AttemptHealth(1, spec), None
    events: list[Event] = []
    offset = 0
    child = supervisor.spawn(job_dir, 1, module="workers.mlx.dry_run", arguments=arguments, stdin=subprocess.PIPE)
    try:
        while child.lives():
            if time.monotonic() - began > timeout_s:
                stall = f"the dry run took longer than {timeout_s:g} s (--timeout), in phase {health.phase}"
                break
            time.sleep(LOOK_S)
            offset = _read_events(job_dir, offset, events, health)
    finally:
        _end(child)
    _read_events(job_dir, offset, events, health)
    report = dataclasses.replace(
        child.exit_report(),
        phase=health.phase,
        pressure_high=health.pressure_high,
        memory_share=health.memory_share,
        kernel_oom_kills=(memory.kernel_oom_kills() or 0) - killed_before,
        stall=stall,
    )
    return ChildRun(began=began, events=events, ending=exits.classify(report))


def _read_events(job_dir: JobDir, offset: int, events: list[Event], health: AttemptHealth) -> int:
    """Read the child's new events; return the offset after them."""
    while (new := event_log.read(job_dir.events, offset)).offset > offset:
        offset = new.offset
        events += new.events
        health.take(new.events)
    return offset


def _end(child: Child) -> None:
    """Ask the child to stop, kill its session if it does not, and wait until it is gone."""
    asked = time.monotonic()
    while child.lives() and time.monotonic() - asked < 2 * STOP_GRACE_S:
        child.request_stop()
        child.kill_after(STOP_GRACE_S)
        time.sleep(LOOK_S)
    child.close_stdin()
