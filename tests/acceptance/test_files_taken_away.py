"""The user deletes or moves what belongs to a living job: it is noticed and answered, and never with a traceback."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.acceptance.undisturbed import Undisturbed
from tests.harness import Lq, Training, Workshop, lives, until

pytestmark = pytest.mark.timeout(240, func_only=True)

LONG = 100_000


def deleted(folder: Path) -> bool:
    """Delete a folder as `rm -r` does; False where something came into it meanwhile."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def ended_by_its_folder(lq: Lq, training: Training, trainer: int) -> None:
    """Wait until a job has ended because its folder is gone, and its trainer with it."""
    job = training.until_status("failed")
    assert job["reason"] == "config_invalid"
    detail = training.facts()["job"]["detail"]
    assert str(training.folder.path) in detail
    assert "was deleted or moved away" in detail
    until(lambda: not lives(trainer), "the trainer to be gone")
    assert "Traceback" not in (lq.home / "worker.log").read_text()
    assert not training.folder.path.exists(), "nobody makes it again"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["deleted", pytest.param("moved", marks=pytest.mark.longest)])
def test_a_job_whose_folder_goes_while_it_trains_ends_with_a_clear_reason(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path, way: str
) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", iters=LONG))
    training.trained(10)
    trainer = training.trainer()
    if way == "deleted":
        until(lambda: deleted(training.folder.path), "the folder to be gone, although it is written to")
    else:
        training.folder.path.rename(tmp_path / "taken")
    ended_by_its_folder(lq, training, trainer)
    again = lq.submit(workshop.job_file(tmp_path / "next.yaml", iters=8))  # the worker goes on with the next job
    again.wait()


def test_a_job_whose_folder_went_before_it_ran_ends_too(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    lq.settings(autostart=False)
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml"))
    shutil.rmtree(training.folder.path)
    lq.start_worker()
    training.until_status("failed")
    assert "was deleted or moved away" in training.facts()["job"]["detail"]
    assert "Traceback" not in (lq.home / "worker.log").read_text()


@pytest.mark.slow
def test_checkpoints_and_events_that_are_deleted_are_made_up_for(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """A deleted checkpoint is no candidate any more; a trainer whose events nobody can read is started anew."""
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", lq={"keep": {"last": 9}}))
    training.trained(30)
    *_, newest = sorted(training.folder.checkpoints.glob("step-*"))
    shutil.rmtree(newest, ignore_errors=True)
    training.folder.events.unlink()
    training.wait()
    facts = training.facts()
    assert facts["job"]["status"] == "succeeded"
    assert training.adapter_sha256("adapters.safetensors") == undisturbed.result.best
    assert training.adapter_sha256("final_adapters.safetensors") == undisturbed.result.final
    assert [incident["code"] for incident in facts["incidents"]].count("events_lost") == 1
    assert len(facts["attempts"]) == 2
    assert "checkpoint_invalid" not in {incident["code"] for incident in facts["incidents"]}
