"""However often a run saves, it leaves few files; and -9 in the midst of clearing up loses nothing."""

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
"""The last two, the best, and three more that the run may have to go back to."""

OTHERS = {"adapters.safetensors", "final_adapters.safetensors", "adapter_config.json", "lq.json", "README.md"}


@pytest.mark.slow
def test_a_run_with_sixty_saves_ends_with_the_documented_few_files(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    changes = {"iters": SAVES, "save_every": 1, "grad_accumulation_steps": 1, "steps_per_eval": 20}
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", **changes))
    training.wait()
    assert len(training.events(Kind.CHECKPOINT)) >= SAVES
    standing = [one.iteration for one in storage.listed(training.folder.checkpoints)]
    validations = {one["iteration"]: one["loss"] for one in training.facts()["validations"]}
    best = min(validations, key=lambda iteration: validations[iteration])
    assert standing[-2:] == [SAVES - 1, SAVES]
    assert best in (*standing, 0)
    assert len(standing) <= MOST_CHECKPOINTS
    assert {path.name for path in training.folder.checkpoints.iterdir()} == {f"step-{one:07d}" for one in standing}
    milestones = {f"{one:07d}_adapters.safetensors" for one in range(6, SAVES + 1, 6)}
    assert {path.name for path in training.folder.adapters.iterdir()} == OTHERS | milestones
    (told,) = lq.json("prune", training.id, "--dry-run")["jobs"]
    assert [set(entry) for entry in told["entries"]] == [{"path", "bytes", "kept", "because"}] * len(told["entries"])
    assert told["bytes"] == 0
    assert all(entry["kept"] and entry["because"] for entry in told["entries"])
    assert {Path(entry["path"]).name for entry in told["entries"]} == (
        {f"step-{one:07d}" for one in standing} | milestones | {name for name in OTHERS if "safetensors" in name}
    )
    lq("verify", training.id)


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.parametrize("moment", ["renamed, not verified", "verified, old ones half deleted"])
def test_killed_while_old_checkpoints_go_nothing_is_lost(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path, moment: str
) -> None:
    """The worker is held while the trainer saves, so that much is to be deleted; then both are killed with -9."""
    worker = lq.start_worker()
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", save_every=4))
    training.trained(8)

    def standing() -> int:
        return len(storage.listed(training.folder.checkpoints))

    os.kill(worker, signal.SIGSTOP)
    until(lambda: standing() > 18, "the trainer to save what nobody deletes")
    kill(training.trainer())
    if moment == "renamed, not verified":
        kill(worker)
    else:
        there = standing()
        os.kill(worker, signal.SIGCONT)
        kill_while(worker, lambda: 5 < standing() < there, "some to be deleted and some not")
    assert standing() > 5
    for found in storage.listed(training.folder.checkpoints):
        storage.verify(found)
    lq.start_worker()
    training.wait()
    assert result(training) == undisturbed.result
    assert standing() <= MOST_CHECKPOINTS
    assert not list(training.folder.checkpoints.glob(".step-*"))
