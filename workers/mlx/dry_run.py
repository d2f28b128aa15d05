"""The dry-run process: `python -P -m workers.mlx.dry_run FOLDER --attempt 1 --at N`.

Its folder is laid out like a job's and is temporary. The parent holds the other end of its stdin; when that closes,
for example because the parent was killed, the dry run removes the folder and exits.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

from configs.load import load_frozen
from jobs.model import run_plan as run_plans
from jobs.model.job_dir import JobDir
from jobs.model.outcomes import Quality, Reason
from workers.events.log import EventLog
from workers.mlx.child import ChildProcess
from workers.mlx.context import RunContext
from workers.process.stop_requests import Requests
from workers.system.memory import prefer_for_oom_kill

GRACE_S = 20.0
"""Time for a running MLX operation to end after the parent is gone."""


def main(arguments: list[str] | None = None) -> int:
    """Do a dry run and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -P -m workers.mlx.dry_run", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--at", type=int, required=True, help="iterations the run has completed")
    parser.add_argument("--cache", type=Path, help="folder for tokenized data; without it, no tokens are kept")
    parser.add_argument("--no-checkpoint", action="store_true", help="write no checkpoint, for lack of space")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    requests = Requests()
    requests.listen()
    watch = ParentWatch(options.folder)
    job_dir = JobDir(options.folder, cache=options.cache)
    with EventLog(job_dir.events, options.attempt) as events:
        process = ChildProcess(events, requests)
        code = process.run(lambda process: _dry_run(process, job_dir, options.at, saves=not options.no_checkpoint))
    requests.ignore_all()
    watch.finish()
    return code


def _dry_run(process: ChildProcess, job_dir: JobDir, iteration: int, *, saves: bool) -> Reason:
    prefer_for_oom_kill()
    spec = load_frozen(job_dir.config)
    run_plan = run_plans.from_json(job_dir.run_plan.read_text())
    with process.requests.nothing_to_lose():
        from workers.mlx.dry_run_steps import DryRun
        from workers.mlx.machine import MemoryReader, machine, versions
        from workers.mlx.run import RunParts
    process.iteration = iteration
    about = versions() | {"machine": machine()}
    process.report_start(None, Quality.FRESH, about, run_plan.index_at(iteration))
    process.loads = True
    context = RunContext(process, spec, run_plan, job_dir, MemoryReader(spec))
    with process.heartbeat(context.reporter.beat), process.requests.nothing_to_lose():
        parts = RunParts.load(context, fresh=iteration == 0, dry=True)
        context.reporter.iteration = iteration
        DryRun(context, parts).run(saves=saves)
    return Reason.COMPLETED


class ParentWatch:
    """Watches in a thread whether the parent still waits for the result."""

    def __init__(self, folder: Path) -> None:
        """Start the thread; it removes the folder if the parent is gone."""
        self._folder = folder
        self._alone = threading.Event()
        threading.Thread(target=self._watch, name="parent-watch", daemon=True).start()

    def _watch(self) -> None:
        with suppress(OSError):
            while os.read(sys.stdin.fileno(), 1):
                pass
        self._alone.set()
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(GRACE_S)
        self._remove()
        os.killpg(os.getpgid(0), signal.SIGKILL)  # the whole session: this process, and a compiler that hangs

    def finish(self) -> None:
        """Remove the folder if the parent is gone."""
        if self._alone.is_set():
            self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
