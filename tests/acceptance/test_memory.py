"""A trainer that runs out of memory continues with less, and the next such job starts with settings that fit."""

from __future__ import annotations

import contextlib
import json
import resource
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.model.events import Kind
from tests.harness import Lq, Training, Workshop, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600, func_only=True),
    pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits another process"),
]

BATCH = 8

ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}
"""glibc reserves address space for an arena of each thread, hundreds of megabytes and a varying number. With one arena
the trainer reaches the same limit at the same place every time."""


def wide_rows(folder: Path) -> Path:
    """Write rows so long that a batch takes far more memory than a single row."""
    folder.mkdir()
    for name, count in (("train", 16), ("valid", 2)):
        rows = [{"text": f"{row} plus {row + 1} is {2 * row + 1}. " * 30} for row in range(count)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def job_file(workshop: Workshop, path: Path, data: Path, **lq: Any) -> Path:
    return workshop.job_file(
        path,
        data=str(data),
        iters=2,
        batch_size=BATCH,
        grad_accumulation_steps=1,
        max_seq_length=2048,
        save_every=1,
        steps_per_report=1,
        steps_per_eval=2,
        lq=lq,
    )


def address_space(pid: int) -> int:
    """Return the address space that a process uses, in bytes; 0 after its exit."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return int(psutil.Process(pid).memory_info().vms)
    return 0


def limit_trainers(worker: int, bound: int) -> None:
    """Limit the address space of every trainer of a worker, but not of the worker, which starts threads."""
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        for child in psutil.Process(worker).children():
            resource.prlimit(child.pid, resource.RLIMIT_AS, (bound, resource.RLIM_INFINITY))


def ended_within(training: Training, worker: int, bound: int) -> dict[str, Any]:
    """Wait for the end of a job whose trainers are limited from their start, and return the job."""

    def ended() -> dict[str, Any] | None:
        limit_trainers(worker, bound)
        job = training.job()
        return job if job["status"] in ("succeeded", "failed") else None

    return until(ended, "the job to end", seconds=200)


def measured(training: Training) -> tuple[int, int]:
    """Watch a training without a limit; return its address space after loading, and its peak."""
    training.until(Kind.PHASE, lambda event: event.data["phase"] in ("tokenize", "probe"))
    trainer = training.trainer()
    loaded = peak = address_space(trainer)

    def gone() -> bool:
        nonlocal peak
        now = address_space(trainer)
        peak = max(peak, now)
        return now == 0

    until(gone, "the trainer to exit", every=0.002)
    return loaded, peak


def test_oom_keeps_effective_batch(workshop: Workshop, tmp_path: Path) -> None:
    data = wide_rows(tmp_path / "data")
    roomy = Lq(tmp_path / "roomy", **ONE_ARENA)
    try:
        roomy.start_worker()
        free = roomy.submit(job_file(workshop, tmp_path / "free.yaml", data))
        loaded, peak = measured(free)
        free.wait()
    finally:
        roomy.leave()
    for share in (0.6, 0.7, 0.5, 0.8, 0.4):
        other = Lq(tmp_path / f"home-{share}", **ONE_ARENA)
        try:
            worker = other.start_worker()
            bound = int(loaded + share * (peak - loaded))
            training = other.submit(job_file(workshop, tmp_path / "bound.yaml", data))
            job = ended_within(training, worker, bound)
            if job["status"] == "succeeded" and len(training.facts()["attempts"]) > 1:
                assert_ladder(training, free)
                again = other.submit(job_file(workshop, tmp_path / "again.yaml", data))
                assert ended_within(again, worker, bound)["status"] == "succeeded"
                assert_fit_is_known(again)
                return
        finally:
            other.leave()
    pytest.skip(f"no limit between {loaded} and {peak} bytes of address space let a smaller rung fit")


def assert_ladder(training: Training, free: Training) -> None:
    facts = training.facts()
    *crashed, last = facts["attempts"]
    reasons = [(attempt["outcome"], attempt["reason"], attempt["detail"]) for attempt in crashed]
    assert {reason[:2] for reason in reasons} == {("crashed", "out_of_memory")}, reasons
    assert last["outcome"] == "done"
    stages = json.loads(training.folder.run_plan.read_text())["stages"]
    assert len(stages) > 1
    assert {stage["batch_size"] * stage["grad_accumulation_steps"] for stage in stages} == {BATCH}
    codes = [incident["code"] for incident in facts["incidents"]]
    assert codes == ["out_of_memory"] * len(crashed)
    assert stages[1]["grad_checkpoint"] is True
    own = dict(training_losses(training))
    assert own == {iteration: pytest.approx(loss, rel=1e-3) for iteration, loss in training_losses(free)}


def training_losses(training: Training) -> list[tuple[int, float]]:
    losses: dict[int, float] = {}
    for event in training.events(Kind.PROGRESS):
        for place, loss in enumerate(event.data["losses"], event.data["iteration"] - len(event.data["losses"]) + 1):
            losses[place] = loss
    return sorted(losses.items())


def assert_fit_is_known(again: Training) -> None:
    attempts = again.facts()["attempts"]
    assert attempts[0]["stage"] == 1  # not with the requested settings, which do not fit
    assert attempts[-1]["outcome"] == "done"  # near the limit the same settings may need the next rung too
    assert "out_of_memory in job 1" in again.folder.run_plan.read_text()
