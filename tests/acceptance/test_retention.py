"""A run with many saves leaves few files, and a kill while old checkpoints are deleted loses nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from jobs.model.events import Kind
from tests.acceptance.undisturbed import Undisturbed
from tests.harness import Lq, Workshop, kill, kill_while, result, until
from workers.checkpoints import storage

pytestmark = pytest.mark.timeout(240, func_only=True)

SAVES = 60
MOST_CHECKPOINTS = 6
"""The last two, the best, and three more for a rollback."""

OTHERS = {"adapters.safetensors", "final_adapters.safetensors", "adapter_config.json", "lq.json", "README.md"}


@pytest.mark.slow
def test_sixty_saves_leave_few_files(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    changes = {"iters": SAVES, "save_every": 1, "grad_accumulation_steps": 1, "steps_per_eval": 20}
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", **changes))
    training.wait()
    assert len(training.events(Kind.CHECKPOINT)) >= SAVES
    kept = [checkpoint.iteration for checkpoint in storage.listed(training.folder.checkpoints)]
    validations = {row["iteration"]: row["loss"] for row in training.facts()["validations"]}
    best = min(validations, key=lambda iteration: validations[iteration])
    assert kept[-2:] == [SAVES - 1, SAVES]
    assert best in (*kept, 0)
    assert len(kept) <= MOST_CHECKPOINTS
    assert {path.name for path in training.folder.checkpoints.iterdir()} == {
        f"step-{iteration:07d}" for iteration in kept
    }
    milestones = {f"{iteration:07d}_adapters.safetensors" for iteration in range(6, SAVES + 1, 6)}
    assert {path.name for path in training.folder.adapters.iterdir()} == OTHERS | milestones
    (pruned,) = lq.json("prune", training.id, "--dry-run")["jobs"]
    assert [set(entry) for entry in pruned["entries"]] == [{"path", "bytes", "kept", "because"}] * len(
        pruned["entries"]
    )
    assert pruned["bytes"] == 0
    assert all(entry["kept"] and entry["because"] for entry in pruned["entries"])
    assert {Path(entry["path"]).name for entry in pruned["entries"]} == (
        {f"step-{iteration:07d}" for iteration in kept}
        | milestones
        | {name for name in OTHERS if "safetensors" in name}
    )
    lq("verify", training.id)


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.parametrize("moment", ["renamed, not verified", "verified, old ones partly deleted"])
def test_kill_while_pruning_loses_nothing(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path, moment: str
) -> None:
    """The worker is suspended while the trainer saves, so that there is much to delete; then both are killed."""
    worker = lq.start_worker()
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", save_every=4))
    training.trained(8)

    def count() -> int:
        return len(storage.listed(training.folder.checkpoints))

    os.kill(worker, signal.SIGSTOP)
    until(lambda: count() > 18, "the trainer to save checkpoints")
    kill(training.trainer())
    if moment == "renamed, not verified":
        kill(worker)
    else:
        before = count()
        os.kill(worker, signal.SIGCONT)
        kill_while(worker, lambda: 5 < count() < before, "a part of them to be deleted")
    assert count() > 5
    for checkpoint in storage.listed(training.folder.checkpoints):
        storage.verify(checkpoint)
    lq.start_worker()
    training.wait()
    assert result(training) == undisturbed.result
    assert count() <= MOST_CHECKPOINTS
    assert not list(training.folder.checkpoints.glob(".step-*"))
