"""A run that says it is done is believed when its last checkpoint is what was written; else it goes on from before."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from orchestrator.worker.decide import proven
from tests.unit.workers.tensor_files import holding, state_at
from workers.checkpoints import storage
from workers.checkpoints.state import CheckpointState
from workers.files.job_dir import JobDir

RUN_PLAN = RunPlan.requested(JobSpec(batch_size=1))
DONE = Ending(outcome=Outcome.DONE, reason=Reason.COMPLETED, detail="trained to its last iteration")
LAST_WORDS = {"outcome": "done", "reason": "completed", "iteration": 20}


@pytest.fixture
def folder(tmp_path: Path) -> JobDir:
    """Give the folder of a run with checkpoints at iterations 10 and 20."""

    def fill(where: Path) -> CheckpointState:
        for name in (storage.ADAPTERS, storage.OPTIMIZER):
            (where / name).write_bytes(holding(b"numbers"))
        return state_at(10, examples=10)

    for iteration in (10, 20):
        storage.write(tmp_path / "checkpoints", iteration, fill)
    return JobDir(tmp_path)


def test_a_run_whose_last_checkpoint_is_whole_is_done(folder: JobDir) -> None:
    assert proven(DONE, LAST_WORDS, folder, RUN_PLAN) == DONE


def test_a_run_whose_last_checkpoint_was_damaged_is_not_published_from_the_one_before(folder: JobDir) -> None:
    damaged = folder.checkpoints / "step-0000020" / storage.ADAPTERS
    damaged.write_bytes(damaged.read_bytes()[:-1])
    ending = proven(DONE, LAST_WORDS, folder, RUN_PLAN)
    assert (ending.outcome, ending.reason) == (Outcome.CRASHED, Reason.CRASHED)
    assert str(damaged) in ending.detail


def test_how_any_other_attempt_ended_is_left_alone(tmp_path: Path) -> None:
    killed = Ending(outcome=Outcome.CRASHED, reason=Reason.KILLED, detail="ended by SIGKILL")
    assert proven(killed, None, JobDir(tmp_path), RUN_PLAN) == killed
