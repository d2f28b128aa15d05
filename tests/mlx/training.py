"""A job folder and the trainer process that works in it: no worker, no store."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from configs.load import dump_job, load_frozen
from jobs.model import run_plan
from jobs.model.events import Event, Kind
from jobs.model.job_dir import JobDir
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.policies.exits import DONE, RESUMABLE
from tests.harness import until
from workers.checkpoints import storage
from workers.checkpoints.storage import Checkpoint
from workers.events import log as event_log

FIRST_EVER_S = 400.0
"""MLX compiles its CPU kernels with g++ on the first run of a fresh machine."""


class Training:
    """A job and its attempts."""

    def __init__(self, path: Path) -> None:
        self.job_dir = JobDir(path)
        self.cache: Path | None = None  # folder of the token cache

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any]) -> Self:
        """Create a job folder as submit does."""
        spec = JobSpec.model_validate(config)
        path.mkdir()
        training = cls(path)
        training.job_dir.config.write_text(dump_job(spec))
        training.write_run_plan(RunPlan.requested(spec))
        return training

    @property
    def spec(self) -> JobSpec:
        return load_frozen(self.job_dir.config)

    @property
    def run_plan(self) -> RunPlan:
        return run_plan.from_json(self.job_dir.run_plan.read_text())

    def write_run_plan(self, plan: RunPlan) -> None:
        self.job_dir.run_plan.write_text(json.dumps(run_plan.to_json(plan)))

    def append_stage(self, **changes: Any) -> Self:
        """Append a stage with these changes to the run plan."""
        stages = self.run_plan.stages
        stage = dataclasses.replace(stages[-1], because="a test", **changes)
        self.write_run_plan(RunPlan(stages=(*stages, stage)))
        return self

    def copied(self, path: Path) -> Self:
        """Return a copy of the folder."""
        shutil.copytree(self.job_dir.path, path)
        return type(self)(path)

    @contextmanager
    def running(self, attempt: int, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """Run an attempt; the process is killed at the end of the block."""
        words = [sys.executable, "-P", "-m", "workers.mlx.train", str(self.job_dir.path), "--attempt", str(attempt)]
        with self.job_dir.log.open("a") as log:
            child = subprocess.Popen(
                words if self.cache is None else [*words, "--cache", str(self.cache)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.job_dir.path,
                env=os.environ | environment,
                start_new_session=True,
                text=True,
            )
        with child:
            try:
                yield child
            finally:
                child.kill()

    def run(self, attempt: int = 1, **environment: str) -> int:
        """Run an attempt to its end and return its exit code."""
        with self.running(attempt, **environment) as child:
            return child.wait(FIRST_EVER_S)

    def finish(self, attempt: int = 1, **environment: str) -> Self:
        """Run an attempt that trains to the last iteration."""
        code = self.run(attempt, **environment)
        assert code == DONE, self.log_tail()
        return self

    def signal_when(
        self,
        ready: Callable[[], object],
        number: signal.Signals,
        *,
        attempt: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> int:
        """Run an attempt, send it a signal when `ready`, and return its exit code."""
        with self.running(attempt, **(environment or {})) as child:
            until(lambda: ready() or child.poll() is not None, "the moment", seconds=FIRST_EVER_S, every=0)
            assert child.poll() is None, self.log_tail()
            child.send_signal(number)
            return child.wait(FIRST_EVER_S)

    def stop_half_way(self, **environment: str) -> Self:
        """Run the first attempt, and stop it after its first checkpoint."""
        code = self.signal_when(lambda: self.checkpointed(1), signal.SIGTERM, environment=environment)
        assert code == RESUMABLE, self.log_tail()
        assert 0 < self.newest.iteration < self.spec.iters
        return self

    def checkpointed(self, iteration: int, *, attempt: int | None = None) -> bool:
        """Return whether a checkpoint of this iteration or a later one was reported."""
        return any(event.data["iteration"] >= iteration for event in self.events(Kind.CHECKPOINT, attempt=attempt))

    def events(self, kind: Kind | None = None, *, attempt: int | None = None) -> list[Event]:
        log = event_log.read(self.job_dir.events, 0)
        assert not log.unreadable
        return [event for event in log.events if kind in (None, event.kind) and attempt in (None, event.attempt)]

    def only(self, kind: Kind, *, attempt: int | None = None) -> Mapping[str, Any]:
        """Return what the only event of a kind carries."""
        [event] = self.events(kind, attempt=attempt)
        return event.data

    def warnings(self, code: str) -> list[Mapping[str, Any]]:
        return [event.data for event in self.events(Kind.WARNING) if event.data["code"] == code]

    def phases(self, name: str) -> int:
        """Return how many phases of this name started."""
        return sum(event.data["phase"] == name for event in self.events(Kind.PHASE))

    def reports(self, *, attempt: int | None = None) -> list[Mapping[str, Any]]:
        """Return the progress events that carry losses."""
        return [event.data for event in self.events(Kind.PROGRESS, attempt=attempt) if event.data["losses"]]

    def losses(self) -> dict[int, float]:
        """Return the loss of each iteration, from the last attempt that trained it."""
        by_iteration: dict[int, float] = {}
        for report in self.reports():
            losses = [float(loss) for loss in report["losses"]]
            by_iteration |= dict(enumerate(losses, report["iteration"] - len(losses) + 1))
        return by_iteration

    def validations(self) -> dict[int, tuple[float, ...]]:
        """Return the loss and the row losses by iteration."""
        return {
            event.data["iteration"]: (event.data["loss"], *event.data["row_losses"])
            for event in self.events(Kind.VALIDATION)
        }

    @property
    def checkpoints(self) -> list[int]:
        """The iterations of the checkpoints."""
        return [checkpoint.iteration for checkpoint in storage.listed(self.job_dir.checkpoints)]

    def checkpoint_at(self, iteration: int) -> Checkpoint:
        return Checkpoint(path=self.job_dir.checkpoints / f"step-{iteration:07d}", iteration=iteration)

    @property
    def newest(self) -> Checkpoint:
        """The newest checkpoint; every one must verify."""
        newest, bad = storage.newest_valid(self.job_dir.checkpoints, self.run_plan)
        assert newest is not None
        assert not bad
        return newest

    def weights(self) -> bytes:
        """Return the adapter of the newest checkpoint."""
        return self.newest.adapters.read_bytes()

    def log_tail(self) -> str:
        """Return what a failing test shows."""
        lines = self.job_dir.events.read_text().splitlines()[-6:] if self.job_dir.events.exists() else []
        return "\n".join([*lines, self.job_dir.log.read_text()[-3000:]])
