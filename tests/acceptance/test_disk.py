"""A full disk while a checkpoint is written: the job waits, and continues when there is space.

A limit on the size of files simulates the full disk, because the same writes fail. To simulate a disk that fills up
slowly, the tests raise `disk.floor`.
"""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from jobs.model.events import Kind
from tests.acceptance.undisturbed import Undisturbed
from tests.harness import Lq, Training, Workshop, result, until
from workers.checkpoints import storage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240, func_only=True)]

LARGE = {"lora_parameters": {"rank": 512, "scale": 2.0, "dropout": 0.05}, "iters": 40}
"""Makes the files of a checkpoint larger than all other files."""

LIMIT = 3 << 20

prlimit = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit of Linux")


def limit(pid: int, size: int) -> None:
    """Limit the file size of a process and its children."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


def wait_until_disk_full(training: Training, attempt: int) -> None:
    """Wait until an attempt has failed with a full disk and the job waits for space."""

    def waits() -> bool:
        job = training.job()
        return (job["status"], job["attempts"]) == ("waiting", attempt)

    until(waits, f"attempt {attempt} to fail with a full disk")
    facts = training.facts()
    last = facts["attempts"][-1]
    assert (last["outcome"], last["reason"]) == ("crashed", "disk_full"), last["detail"]
    assert (facts["job"]["reason"], facts["incidents"][-1]["code"]) == ("disk_full", "disk_full")


@pytest.mark.longest
@prlimit
def test_full_disk_pauses_the_job(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    worker = lq.start_worker()
    file = workshop.job_file(tmp_path / "job.yaml", **LARGE, lq={"retry": {"max_restarts": 0, "crash_loop": 1}})
    limit(worker, LIMIT)
    training = lq.submit(file)
    wait_until_disk_full(training, 1)
    assert not training.events(Kind.CHECKPOINT)
    lq("resume", training.id)  # fails again and waits again, although no restart is allowed
    wait_until_disk_full(training, 2)
    limit(worker, resource.RLIM_INFINITY)
    lq("resume", training.id)
    training.wait()
    assert not list(training.folder.checkpoints.glob(".step-*"))
    largest = max(path.stat().st_size for path in training.folder.checkpoints.rglob("*.safetensors"))
    assert largest > LIMIT, "the limit was low enough"
    again = lq.submit(file)
    again.wait()
    assert result(again) == result(training)


@prlimit
def test_earlier_checkpoint_is_resumed(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml"))
    training.trained(30)
    size = next(training.folder.checkpoints.glob("step-*/optimizer.safetensors")).stat().st_size
    assert training.folder.events.stat().st_size < size, "the events must still fit"
    limit(training.trainer(), size - 1)
    wait_until_disk_full(training, 1)
    lq("resume", training.id)
    training.wait()
    assert result(training) == undisturbed.result
    assert training.facts()["attempts"][1]["quality"] == "exact"


@pytest.mark.longest
def test_low_disk_deletes_old_checkpoints(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    lq.settings(disk={"floor": "1MB"})
    keep = {"keep": {"last": 9, "milestones": "0%"}}
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", iters=400, steps_per_eval=400, lq=keep))
    training.trained(50)
    assert len(storage.listed(training.folder.checkpoints)) > 3
    lq.settings(disk={"floor": "1000000GB"})
    wait_until_disk_full(training, 1)
    remaining = storage.listed(training.folder.checkpoints)
    assert len(remaining) <= 3, "the newest, the best, and the last one before the stop"
    lq.settings(disk={"floor": "1MB"})
    training.wait(seconds=150)
    attempts = training.facts()["attempts"]
    assert [attempt["reason"] for attempt in attempts] == ["disk_full", "completed"]
    assert attempts[1]["first_iteration"] == remaining[-1].iteration
    assert attempts[1]["quality"] == "exact"
