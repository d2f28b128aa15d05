"""The user deletes or moves files of a live job: the job ends or recovers, without a traceback."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.acceptance.undisturbed import Undisturbed
from tests.harness import Lq, Training, Workshop, lives, until

pytestmark = pytest.mark.timeout(240, func_only=True)

LONG = 100_000


def deleted(folder: Path) -> bool:
    """Delete a folder as `rm -r` does; return False if a file was added meanwhile."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


def assert_ended_without_folder(lq: Lq, training: Training, trainer: int) -> None:
    """Wait until a job without a folder and its trainer have ended."""
    job = training.until_status("failed")
    assert job["reason"] == "config_invalid"
    detail = training.facts()["job"]["detail"]
    assert str(training.folder.path) in detail
    until(lambda: not lives(trainer), "the trainer to exit")
    assert "Traceback" not in (lq.home / "worker.log").read_text()
    assert not training.folder.path.exists(), "lq does not create it again"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["deleted", pytest.param("moved", marks=pytest.mark.longest)])
def test_deleted_folder_ends_running_job(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path, way: str
) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", iters=LONG))
    training.trained(10)
    trainer = training.trainer()
    if way == "deleted":
        until(lambda: deleted(training.folder.path), "the folder to be deleted while it is written")
    else:
        training.folder.path.rename(tmp_path / "taken")
    assert_ended_without_folder(lq, training, trainer)
    again = lq.submit(workshop.job_file(tmp_path / "next.yaml", iters=8))  # the worker runs the next job
    again.wait()


def test_deleted_folder_ends_queued_job(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    lq.settings(autostart=False)
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml"))
    shutil.rmtree(training.folder.path)
    lq.start_worker()
    training.until_status("failed")
    assert str(training.folder.path) in training.facts()["job"]["detail"]
    assert "Traceback" not in (lq.home / "worker.log").read_text()


@pytest.mark.slow
def test_deleted_checkpoint_and_events(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """Lq resumes from an older checkpoint, and restarts a trainer whose event log was deleted."""
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
