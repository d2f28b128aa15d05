"""One rehearsal: a child in a folder of its own, both gone afterwards, whatever happens meanwhile.

The child is kept as a trainer is (workers/process/supervisor.py), and its end is judged as a trainer's
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
from jobs.model.events import Event, Kind
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
from workers.system import sensors

PREFIX = ".check-"
LOOK_S = 0.05
STOP_GRACE_S = 20.0
LEFT_BEHIND_S = 60.0
"""A folder that nobody holds is old after so long: its `lq check` and its child were killed together."""

_LOCK = "check.lock"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Performance:
    """What a child said, and how it ended."""

    began: float  # when it was started, on the clock that stops in sleep
    events: Sequence[Event]
    ending: Ending


def perform(home: Home, spec: JobSpec, run_plan: RunPlan, *, at: int, saves: bool, timeout_s: float) -> Performance:
    """Rehearse a run.

    Args:
        home: on whose disk a checkpoint is tried, where it is there.
        spec: what is asked for.
        run_plan: the stages.
        at: completed iterations of the run.
        saves: whether there is space to try a checkpoint.
        timeout_s: after so long the child is ended.
    """
    arguments = ["--at", str(at), *([] if saves else ["--no-checkpoint"])]
    if home.path.is_dir():
        arguments += ["--cache", str(home.cache)]  # the run itself will find its tokens there
    with _stage(home, spec, run_plan) as job_dir:
        told = _performed(job_dir, spec, arguments, timeout_s=timeout_s)
        if any(event.kind is Kind.WARNING and event.data["code"] == "torn_kernel" for event in told.events):
            job_dir.events.unlink()  # the kernel is removed by now, and compiled anew, as in a job's next attempt
            told = _performed(job_dir, spec, arguments, timeout_s=timeout_s)
        return told


@contextmanager
def _stage(home: Home, spec: JobSpec, run_plan: RunPlan) -> Iterator[JobDir]:
    """Lay out a folder like a job's, on the disk the job will lie on, and remove it whatever happens."""
    place = home.path if home.path.is_dir() else None
    if place is not None:
        _sweep(place)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
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


def _sweep(place: Path) -> None:
    """Remove the folders of rehearsals that were killed together with their child."""
    for folder in place.glob(f"{PREFIX}*"):
        with suppress(OSError, Held):
            if time.time() - folder.stat().st_mtime > LEFT_BEHIND_S and holder(folder / _LOCK) is None:
                shutil.rmtree(folder, ignore_errors=True)


def _performed(job_dir: JobDir, spec: JobSpec, arguments: Sequence[str], *, timeout_s: float) -> Performance:
    """Run the child to its end and judge that; whatever happens here, no process of it is left."""
    killed_before, began = sensors.kernel_oom_kills() or 0, time.monotonic()
    health, stall = AttemptHealth(1, spec), None
    events: list[Event] = []
    offset = 0
    child = supervisor.spawn(job_dir, 1, module="workers.mlx.dry_run", arguments=arguments, stdin=subprocess.PIPE)
    try:
        while child.lives():
            if time.monotonic() - began > timeout_s:
                stall = f"the rehearsal took longer than {timeout_s:g} s (--timeout), in phase {health.phase}"
                break
            time.sleep(LOOK_S)
            offset = _hear(job_dir, offset, events, health)
    finally:
        _end(child)
    _hear(job_dir, offset, events, health)
    report = child.exit_report(
        phase=health.phase,
        pressure_high=health.pressure_high,
        memory_share=health.memory_share,
        kernel_oom_kills=(sensors.kernel_oom_kills() or 0) - killed_before,
        stall=stall,
    )
    return Performance(began=began, events=events, ending=exits.classify(report))


def _hear(job_dir: JobDir, offset: int, events: list[Event], health: AttemptHealth) -> int:
    """Take in what the child has said since; return where to go on."""
    while (found := event_log.read(job_dir.events, offset)).offset > offset:
        offset = found.offset
        events += found.events
        health.take(found.events)
    return offset


def _end(child: Child) -> None:
    """Ask the child to stop, end its whole session where it does not, and see it gone."""
    asked = time.monotonic()
    while child.lives() and time.monotonic() - asked < 2 * STOP_GRACE_S:
        child.ask_to_stop()
        child.kill_after(STOP_GRACE_S)
        time.sleep(LOOK_S)
    child.let_go()
