"""Checkpoints and adapters as a trainer and lq leave them, without training."""

from __future__ import annotations

from pathlib import Path

from jobs.model.job import Job
from orchestrator.core.app import App
from orchestrator.core.paths import Home as RealHome
from tests.unit.orchestrator.cli_homes import Home
from tests.unit.workers.tensor_files import holding, state_at
from workers.checkpoints import adapters, storage
from workers.checkpoints.state import CheckpointState
from workers.checkpoints.storage import Checkpoint

WEIGHTS, MOMENTS = 3000, 6000
"""Bytes of the tensors in a checkpoint's two large files."""

BATCH = 4
"""The default `batch_size`."""


def app_of(home: Home) -> App:
    """Return the app for a home."""
    return App(RealHome(home.path))


def save(job: Job, iteration: int, loss: float | None = None) -> Checkpoint:
    """Write a checkpoint into a job's folder."""

    def fill(where: Path) -> CheckpointState:
        (where / storage.ADAPTERS).write_bytes(holding(str(iteration).encode().ljust(WEIGHTS)))
        (where / storage.OPTIMIZER).write_bytes(holding(str(iteration).encode().ljust(MOMENTS)))
        return state_at(iteration, examples=iteration * BATCH, loss=loss)

    return storage.write(job.dir.checkpoints, iteration, fill)[0]


def publish(app: App, job: Job) -> None:
    """Lay the finished adapter out."""
    spec = app.store.spec(job.id)
    run_plan = app.store.run_plans.get(job.id, spec)
    adapters.publish(job.dir, spec, run_plan, job_id=job.id)


def damage(path: Path) -> None:
    """Change one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def disk_used(folder: Path) -> int:
    """Return the bytes of all files below a folder, those with several names once."""
    found = {(path.lstat().st_ino): path.lstat().st_size for path in folder.rglob("*") if path.is_file()}
    return sum(found.values())
