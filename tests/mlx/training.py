"""A job folder and the child that trains in it: no worker, no store, only `python -P -m workers.train`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from configs.load import dump_job, load_frozen
from jobs.model import run_plan
from jobs.model.events import Event, Kind
from jobs.model.job_dir import JobDir
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.policies.exits import DONE
from tests.harness import until
from workers.checkpoints import storage
from workers.checkpoints.storage import Checkpoint
from workers.events import log as event_log

FIRST_EVER_S = 400.0
"""MLX compiles its CPU kernels with g++ on the first run of a fresh machine."""


class Training:
    """One job and its attempts."""

    def __init__(self, path: Path) -> None:
        """Look at a job folder; `laid_out` makes one."""
        self.job_dir = JobDir(path)
        self.cache: Path | None = None  # where it keeps tokens

    @classmethod
    def laid_out(cls, path: Path, config: Mapping[str, Any]) -> Self:
        """Make a job folder as submit does, from what a user writes."""
        spec = JobSpec.model_validate(config)
        path.mkdir()
        training = cls(path)
        training.job_dir.config.write_text(dump_job(spec))
        training.job_dir.run_plan.write_text(json.dumps(run_plan.to_json(run_plan.RunPlan.requested(spec))))
        return training

    @property
    def spec(self) -> JobSpec:
        """What it trains."""
        return load_frozen(self.job_dir.config)

    @property
    def run_plan(self) -> RunPlan:
        """The stages it trains under."""
        return run_plan.from_json(self.job_dir.run_plan.read_text())

    def copied(self, path: Path) -> Self:
        """Return a copy of the whole folder as it stands now."""
        shutil.copytree(self.job_dir.path, path)
        return type(self)(path)

    @contextmanager
    def running(self, attempt: int, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """Run an attempt; whatever happens, it is gone afterwards."""
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
        assert code == DONE, self.story()
        return self

    def stopped_half_way(self, **environment: str) -> Self:
        """Run the first attempt, and ask it to stop when it has written a checkpoint."""
        with self.running(1, **environment) as child:
            self.await_checkpoint(child)
            child.send_signal(signal.SIGTERM)
            code = child.wait(FIRST_EVER_S)
        assert code == 75, self.story()
        assert 0 < self.newest.iteration < self.spec.iters
        return self

    def await_checkpoint(self, child: subprocess.Popen[str]) -> None:
        """Wait until the first checkpoint is told."""
        until(
            lambda: self.events(Kind.CHECKPOINT) or child.poll() is not None,
            "the first checkpoint",
            seconds=FIRST_EVER_S,
        )
        assert child.poll() is None, self.story()

    def events(self, kind: Kind | None = None, *, attempt: int | None = None) -> list[Event]:
        """What the child said."""
        seen = event_log.read(self.job_dir.events, 0)
        assert not seen.unreadable
        return [event for event in seen.events if kind in (None, event.kind) and attempt in (None, event.attempt)]

    def said(self, kind: Kind) -> Mapping[str, Any]:
        """What the only event of a kind carries."""
        [event] = self.events(kind)
        return event.data

    def losses(self) -> dict[int, float]:
        """The loss of each iteration, as the last attempt that trained it told it."""
        told: dict[int, float] = {}
        for event in self.events(Kind.PROGRESS):
            losses = [float(loss) for loss in event.data["losses"]]
            told |= dict(enumerate(losses, event.data["iteration"] - len(losses) + 1))
        return told

    def validations(self) -> dict[int, tuple[float, ...]]:
        """Loss and row losses by iteration."""
        return {
            event.data["iteration"]: (event.data["loss"], *event.data["row_losses"])
            for event in self.events(Kind.VALIDATION)
        }

    @property
    def checkpoints(self) -> list[int]:
        """Iterations of the checkpoints."""
        return [checkpoint.iteration for checkpoint in storage.listed(self.job_dir.checkpoints)]

    @property
    def newest(self) -> Checkpoint:
        """The newest checkpoint; every one must verify."""
        found, bad = storage.newest_valid(self.job_dir.checkpoints, self.run_plan)
        assert found is not None
        assert not bad
        return found

    def weights(self) -> bytes:
        """The adapter of the newest checkpoint."""
        return self.newest.adapters.read_bytes()

    def story(self) -> str:
        """What a failing test should show."""
        lines = self.job_dir.events.read_text().splitlines()[-6:] if self.job_dir.events.exists() else []
        return "\n".join([*lines, self.job_dir.log.read_text()[-3000:]])
