"""The child: `python -P -m workers.train JOB_DIR --attempt N`. One attempt, from lock to `ended`.

It is a function of (spec, run plan, checkpoint) and speaks through events.jsonl only. Exit codes: 0 done,
75 stopped on request (resumable), 78 the same would happen again, anything else: died.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from configs.load import load_frozen
from jobs.model import run_plan as run_plans
from jobs.model.errors import DataInvalid, InvalidInput, LqError, ModelMissing
from jobs.model.events import Kind
from jobs.model.job_dir import JobDir
from jobs.model.outcomes import Outcome, Quality, Reason
from jobs.model.spec import JobSpec
from jobs.policies.exits import DISK_FULL, DONE, NEVER_RETRY, RESUMABLE
from workers.checkpoints import storage
from workers.checkpoints.storage import Checkpoint
from workers.events.log import EventLog
from workers.events.reporter import HEARTBEAT_S
from workers.process.lock import Held, LockFile
from workers.process.stop_requests import Requests, StopAsked
from workers.system import kernel_cache
from workers.system.processes import be_first_to_go, identity

CRASHED = 1


def main(arguments: list[str] | None = None) -> int:
    """Run one attempt and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -P -m workers.train", description=__doc__)
    parser.add_argument("job_dir", type=Path)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--cache", type=Path, help="where tokenised data is kept; nowhere unless given")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    requests = Requests()
    requests.listen()
    job_dir = JobDir(options.job_dir, cache=options.cache)
    try:
        lock = LockFile.take(job_dir.lock)
    except Held:
        print(f"another trainer works on {job_dir.path}; this one goes", file=sys.stderr)  # noqa: T201 train.log
        return RESUMABLE
    if int(lock.content().get("attempt", 0)) >= options.attempt:
        print(f"attempt {options.attempt} of {job_dir.path} came too late", file=sys.stderr)  # noqa: T201 train.log
        return RESUMABLE
    lock.write(identity(), attempt=options.attempt)
    with EventLog(job_dir.events, options.attempt) as events:
        code = attempted(events, requests, partial(_train, job_dir, events, requests))
    requests.nothing_more()
    return code


def attempted(events: EventLog, requests: Requests, train: Callable[[list[int]], Reason]) -> int:
    """Do what a child does, say how it ended, whatever happens, and return the exit code.

    Args:
        events: where it is said.
        requests: what signals have asked.
        train: what is done; keeps the iteration it has come to in the list's only place.
    """
    iteration = [0]
    try:
        reason = train(iteration)
    except StopAsked:
        reason = Reason.STOPPED_BY_USER
    except InvalidInput as error:
        _ended(events, Outcome.REFUSED, _reason_for(error), iteration[0], str(error))
        return NEVER_RETRY
    except BaseException as error:  # noqa: BLE001 the border of the process: it records, and the parent judges
        traceback.print_exc()
        reason = _reason_for_crash(error)
        with suppress(OSError):  # a full disk takes these lines too; then the exit code tells
            torn = kernel_cache.remove_torn(error)
            if torn is not None:
                text = f"MLX's compiled kernel {torn.name} was torn and is removed; it will be compiled again"
                events.append(Kind.WARNING, code="torn_kernel", text=text)
            _ended(events, Outcome.CRASHED, reason, iteration[0], f"{type(error).__name__}: {_first_line(error)}")
        return DISK_FULL if reason is Reason.DISK_FULL else CRASHED
    if reason in (Reason.COMPLETED, Reason.EARLY_STOPPED):
        early = reason is Reason.EARLY_STOPPED
        detail = f"ended early, at iteration {iteration[0]:,}" if early else "trained to its last iteration"
        _ended(events, Outcome.DONE, reason, iteration[0], detail)
        return DONE
    why = "a segment ended" if requests.segment_over else "stopped on request"
    _ended(events, Outcome.STOPPED, reason, iteration[0], f"{why} at iteration {iteration[0]}")
    return RESUMABLE


def _train(job_dir: JobDir, events: EventLog, requests: Requests, iteration: list[int]) -> Reason:
    be_first_to_go()
    spec = load_frozen(job_dir.config)
    run_plan = run_plans.from_json(job_dir.run_plan.read_text())
    storage.sweep(job_dir.checkpoints)
    resume, bad = storage.newest_sound(job_dir.checkpoints, run_plan, by="the trainer")
    with requests.nothing_to_lose():
        # Seconds of imports; a stop meanwhile must not wait for them.
        from workers.mlx.run import TrainingRun, data_hashes, machine, versions
    quality = _quality(resume, versions(), machine())
    iteration[0] = resume.iteration if resume else 0
    stage = run_plan.at(iteration[0] * spec.batch_size)
    tell_start(events, resume, quality, versions() | {"machine": machine()}, stage)
    for text in bad:
        events.append(Kind.WARNING, code="checkpoint_invalid", text=f"{text}; using the one before it")
    _check_data(resume, spec, data_hashes(spec))
    run = TrainingRun(spec, run_plan, job_dir, events, requests)
    with heartbeat(events, run.reporter.beat):
        try:
            return run.run(resume, quality)
        finally:
            iteration[0] = max(iteration[0], run.reporter.iteration)


def tell_start(
    events: EventLog, resume: Checkpoint | None, quality: Quality, about: dict[str, str], stage: int
) -> None:
    """Say who this child is, and what it begins from."""
    me = identity()
    events.append(
        Kind.STARTED,
        pid=me.pid,
        create_time=me.create_time,
        boot_id=me.boot_id,
        versions=about,
        resumed_from=resume.path.name if resume else None,
        iteration=resume.iteration if resume else 0,
        resume_quality=quality.value,
        stage=stage,
    )


def _quality(resume: Checkpoint | None, running: dict[str, str], machine: str) -> Quality:
    """Say how faithful a resume from this checkpoint can be."""
    if resume is None:
        return Quality.FRESH
    if not resume.optimizer.is_file():
        return Quality.WEIGHTS
    state = resume.state()
    same = state["versions"] == running and state["machine"] == machine
    return Quality.EXACT if same else Quality.STATE


def _check_data(resume: Checkpoint | None, spec: JobSpec, now: dict[str, str]) -> None:
    """Refuse to resume on other data than the run began with: its positions would mean other rows."""
    if resume is None:
        return
    before = resume.state()["data"]
    changed = sorted(name for name in before | now if before.get(name) != now.get(name))
    if changed:
        raise DataInvalid(
            f"{Path(spec.data) / changed[0]} is not the file this run began with, so it cannot go on; "
            "put the old one back and retry, or submit the job again"
        )


def _ended(events: EventLog, outcome: Outcome, reason: Reason, iteration: int, detail: str) -> None:
    events.append(Kind.ENDED, outcome=outcome.value, reason=reason.value, iteration=iteration, detail=detail)


def _reason_for(error: LqError) -> Reason:
    if isinstance(error, DataInvalid):
        return Reason.DATA_INVALID
    return Reason.MODEL_MISSING if isinstance(error, ModelMissing) else Reason.CONFIG_INVALID


def _reason_for_crash(error: BaseException) -> Reason:
    if isinstance(error, MemoryError):
        return Reason.OUT_OF_MEMORY
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Reason.DISK_FULL
    return Reason.CRASHED


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else ""


@contextmanager
def heartbeat(events: EventLog, beat: Callable[[], None]) -> Iterator[None]:
    """Write a progress line whenever nothing else was written for a while, so that silence means something."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(max(0.05, HEARTBEAT_S - events.quiet_for())):
            if events.quiet_for() >= HEARTBEAT_S:
                beat()

    thread = threading.Thread(target=watch, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


if __name__ == "__main__":
    sys.exit(main())
