"""The trainer process: `python -P -m workers.mlx.train JOB_DIR --attempt N`. One attempt at a run."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from configs.load import load_frozen
from jobs.model import run_plan as run_plans
from jobs.model.errors import DataInvalid
from jobs.model.events import WarningEvent
from jobs.model.job_dir import JobDir
from jobs.model.outcomes import Quality, Reason
from jobs.model.spec import JobSpec
from jobs.policies.exits import RESUMABLE
from workers.checkpoints import storage
from workers.checkpoints.storage import Checkpoint
from workers.events.log import EventLog
from workers.mlx.child import ChildProcess
from workers.mlx.context import RunContext
from workers.process.lock import Held, LockFile
from workers.process.stop_requests import Requests
from workers.system.memory import prefer_for_oom_kill
from workers.system.processes import identity


def main(arguments: list[str] | None = None) -> int:
    """Run one attempt and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -P -m workers.mlx.train", description=__doc__)
    parser.add_argument("job_dir", type=Path)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--cache", type=Path, help="folder for tokenized data; without it, no tokens are kept")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    requests = Requests()
    requests.listen()
    job_dir = JobDir(options.job_dir, cache=options.cache)
    try:
        lock = LockFile.take(job_dir.lock)
    except Held:
        print(f"another trainer works on {job_dir.path}; this one exits", file=sys.stderr)  # noqa: T201 train.log
        return RESUMABLE
    if int(lock.content().get("attempt", 0)) >= options.attempt:
        print(f"attempt {options.attempt} of {job_dir.path} came too late", file=sys.stderr)  # noqa: T201 train.log
        return RESUMABLE
    lock.write(identity(), attempt=options.attempt)
    with EventLog(job_dir.events, options.attempt) as events:
        code = ChildProcess(events, requests).run(lambda process: _train(process, job_dir))
    requests.ignore_all()
    return code


def _train(process: ChildProcess, job_dir: JobDir) -> Reason:
    prefer_for_oom_kill()
    events, requests = process.events, process.requests
    spec = load_frozen(job_dir.config)
    run_plan = run_plans.from_json(job_dir.run_plan.read_text())
    storage.sweep(job_dir.checkpoints)
    resume, bad = storage.newest_valid(job_dir.checkpoints, run_plan, set_aside_by="the trainer")
    with requests.nothing_to_lose():  # the imports take seconds, and a stop must not wait for them
        from workers.mlx.data import data_hashes, reference_hash
        from workers.mlx.machine import MemoryReader, machine, versions
        from workers.mlx.run import RunParts, TrainingRun
    quality = _quality(resume, versions(), machine())
    process.iteration = resume.iteration if resume else 0
    stage = run_plan.index_at(process.iteration)
    process.report_start(resume, quality, versions() | {"machine": machine()}, stage)
    for text in bad:
        events.append(WarningEvent(code="checkpoint_invalid", text=f"{text}; using the one before it"))
    process.loads = True
    _check_data(resume, spec, job_dir, data_hashes(spec) | reference_hash(spec, job_dir))
    context = RunContext(process, spec, run_plan, job_dir, MemoryReader(spec))
    with process.heartbeat(context.reporter.beat):
        try:
            with requests.nothing_to_lose():
                run = TrainingRun(context, RunParts.load(context, fresh=resume is None))
                run.prepare(resume, quality)
            return run.train()
        finally:
            process.trained = context.iteration > process.iteration
            process.iteration = max(process.iteration, context.iteration)


def _quality(resume: Checkpoint | None, versions: dict[str, str], machine: str) -> Quality:
    """Return how exact a resume from this checkpoint can be."""
    if resume is None:
        return Quality.FRESH
    if not resume.optimizer.is_file():
        return Quality.WEIGHTS
    state = resume.state()
    return Quality.EXACT if (state.versions, state.machine) == (versions, machine) else Quality.STATE


def _check_data(resume: Checkpoint | None, spec: JobSpec, job_dir: JobDir, hashes: dict[str, str]) -> None:
    """Refuse to resume with other data than the run started with: its positions would mean other rows."""
    if resume is None:
        return
    before = resume.state().data
    changed = sorted(name for name in {*before, *hashes} if before.get(name) != hashes.get(name))
    if changed:
        folder = job_dir.path if changed[0] == job_dir.reference.name else Path(spec.data)
        raise DataInvalid(
            f"{folder / changed[0]} is not the file this run began with, so it cannot go on; "
            "put the old one back and retry, or submit the job again"
        )


if __name__ == "__main__":
    sys.exit(main())
