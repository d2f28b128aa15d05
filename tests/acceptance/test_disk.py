"""The disk is full while a checkpoint is written: nothing torn is used, the job waits, and goes on when there is space.

A limit on the size of files stands for the full disk: it fails the same writes, and needs no disk of its own. For one
that fills up slowly `disk.floor` is raised instead of the free space falling.
"""

from __future__ import annotations

import re
import resource
from pathlib import Path

import pytest

from jobs.model.events import Kind
from tests.acceptance.undisturbed import Undisturbed
from tests.harness import Lq, Training, Workshop, result, until
from workers.checkpoints import storage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240, func_only=True)]

LARGE = {"lora_parameters": {"rank": 512, "scale": 2.0, "dropout": 0.05}, "iters": 40}
"""So that a checkpoint's files are larger than everything else that is written."""

LIMIT = 3 << 20

prlimit = pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits another process")


def limit(pid: int, size: int) -> None:
    """Limit what a process, and those it starts, may write into one file."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


def died_of_it(training: Training, attempt: int) -> None:
    """Wait until an attempt has found the disk full and the job waits for space."""

    def waits() -> bool:
        job = training.job()
        return (job["status"], job["attempts"]) == ("waiting", attempt)

    until(waits, f"attempt {attempt} to find the disk full")
    facts = training.facts()
    last = facts["attempts"][-1]
    assert (last["outcome"], last["reason"]) == ("crashed", "disk_full"), last["detail"]
    assert (facts["job"]["reason"], facts["incidents"][-1]["code"]) == ("disk_full", "disk_full")
    assert facts["incidents"][-1]["evidence"]["action"].startswith("waits")


@pytest.mark.longest
@prlimit
def test_a_full_disk_is_waited_for_and_nothing_torn_is_used(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    worker = lq.start_worker()
    file = workshop.job_file(tmp_path / "job.yaml", **LARGE, lq={"retry": {"max_restarts": 0, "crash_loop": 1}})
    limit(worker, LIMIT)
    training = lq.submit(file)
    died_of_it(training, 1)
    assert not training.events(Kind.CHECKPOINT)
    lq("resume", training.id)  # not yet: it fails again, and waits again, however few restarts are allowed
    died_of_it(training, 2)
    limit(worker, resource.RLIM_INFINITY)
    lq("resume", training.id)
    training.wait()
    assert not list(training.folder.checkpoints.glob(".step-*"))
    largest = max(path.stat().st_size for path in training.folder.checkpoints.rglob("*.safetensors"))
    assert largest > LIMIT, "the limit stood in the way"
    again = lq.submit(file)
    again.wait()
    assert result(again) == result(training)


@prlimit
def test_a_checkpoint_written_before_the_disk_was_full_is_where_it_goes_on(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml"))
    training.trained(30)
    size = next(training.folder.checkpoints.glob("step-*/optimizer.safetensors")).stat().st_size
    told = training.folder.events.stat().st_size
    assert told < size, "the events must still have room"
    limit(training.trainer(), size - 1)
    died_of_it(training, 1)
    lq("resume", training.id)
    training.wait()
    assert result(training) == undisturbed.result
    assert training.facts()["attempts"][1]["quality"] == "exact"


@pytest.mark.longest
def test_below_the_floor_older_checkpoints_go_then_the_job_waits_and_goes_on_by_itself(
    lq: Lq, workshop: Workshop, tmp_path: Path
) -> None:
    lq.settings(disk={"floor": "1MB"})
    keep = {"keep": {"last": 9, "milestones": "0%"}}
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", iters=400, steps_per_eval=400, lq=keep))
    training.trained(50)
    assert len(storage.listed(training.folder.checkpoints)) > 3
    lq.settings(disk={"floor": "1000000GB"})
    died_of_it(training, 1)
    detail = training.facts()["job"]["detail"]
    assert re.fullmatch(r"only [\d.,]+ [GM]B are free on the disk, and [\d.,]+ GB must stay free", detail)
    standing = storage.listed(training.folder.checkpoints)
    assert len(standing) <= 3, "the newest, the best, and the one that was written before it stopped"
    lq.settings(disk={"floor": "1MB"})
    training.wait(seconds=150)
    attempts = training.facts()["attempts"]
    assert [attempt["reason"] for attempt in attempts] == ["disk_full", "completed"]
    assert attempts[1]["first_iteration"] == standing[-1].iteration
    assert attempts[1]["quality"] == "exact"
