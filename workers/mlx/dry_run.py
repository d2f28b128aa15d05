"""The throw-away child: `python -P -m workers.mlx.dry_run FOLDER --attempt 1 --at N`. A run rehearsed, not trained.

It speaks as the trainer does, through events.jsonl and its exit code (workers/mlx/train.py). Its folder is laid out
like a job's and is nobody's: who started it holds the other end of its stdin, and when that closes, because it is
killed
for example, the child removes the folder and ends.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

from configs.load import load_frozen
from jobs.model import run_plan as run_plans
from jobs.model.job_dir import JobDir
from jobs.model.outcomes import Quality, Reason
from workers.events.log import EventLog
from workers.mlx.train import attempted, heartbeat, tell_start
from workers.process.stop_requests import Requests
from workers.system.processes import be_first_to_go

GRACE_S = 20.0
"""So long a step of MLX's may take after nobody is there any more."""


def main(arguments: list[str] | None = None) -> int:
    """Rehearse a run and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -P -m workers.mlx.dry_run", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--at", type=int, required=True, help="iterations the run has completed")
    parser.add_argument("--cache", type=Path, help="where tokenised data is kept; nowhere unless given")
    parser.add_argument("--no-checkpoint", action="store_true", help="there is no space for one")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    requests = Requests()
    requests.listen()
    keeper = Keeper(options.folder)
    job_dir = JobDir(options.folder, cache=options.cache)
    with EventLog(job_dir.events, options.attempt) as events:
        rehearse = partial(_rehearse, job_dir, events, requests, options.at, not options.no_checkpoint)
        code = attempted(events, requests, rehearse)
    requests.nothing_more()
    keeper.leave()
    return code


def _rehearse(
    job_dir: JobDir, events: EventLog, requests: Requests, at: int, saves: bool, iteration: list[int]
) -> Reason:
    be_first_to_go()
    spec = load_frozen(job_dir.config)
    run_plan = run_plans.from_json(job_dir.run_plan.read_text())
    with requests.nothing_to_lose():
        from workers.mlx.dry_run_steps import Rehearsal
        from workers.mlx.run import machine, versions
    iteration[0] = at
    about = versions() | {"machine": machine()}
    tell_start(events, None, Quality.FRESH, about, run_plan.at(at * spec.batch_size))
    rehearsal = Rehearsal(spec, run_plan, job_dir, events, requests)
    with heartbeat(events, rehearsal.reporter.beat):
        rehearsal.rehearse(at, saves=saves)
    return Reason.COMPLETED


class Keeper:
    """Looks whether anybody still waits for the answer, in a thread of its own."""

    def __init__(self, folder: Path) -> None:
        """Begin to look.

        Args:
            folder: goes when nobody does.
        """
        self._folder = folder
        self._alone = threading.Event()
        threading.Thread(target=self._look, name="keeper", daemon=True).start()

    def _look(self) -> None:
        with suppress(OSError):
            while os.read(sys.stdin.fileno(), 1):
                pass
        self._alone.set()
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(GRACE_S)
        self._remove()
        os.killpg(os.getpgid(0), signal.SIGKILL)  # a session of its own: itself, and a compiler that hangs

    def leave(self) -> None:
        """Remove the folder, where nobody else will."""
        if self._alone.is_set():
            self._remove()

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
