"""pause, resume and cancel of running jobs, twice, and from two terminals at once."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.model.events import Kind
from tests.acceptance.undisturbed import Undisturbed
from tests.harness import Answer, Lq, Workshop, lives, result, until

pytestmark = pytest.mark.timeout(240, func_only=True)


def at_once(lq: Lq, *words: str | int, expect: int = 0) -> list[Answer]:
    """Run the same command in two terminals."""
    with ThreadPoolExecutor(2) as terminals:
        return list(terminals.map(lambda _: lq(*words, expect=expect), range(2)))


@pytest.mark.slow
def test_pause_resume_cancel_a_running_job(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml"))
    training.trained(20)
    trainer = training.trainer()
    os.kill(trainer, signal.SIGSTOP)  # it must not end earlier; a request wakes it
    at_once(lq, "pause", training.id)
    assert not lives(trainer)
    assert (training.job()["status"], training.job()["reason"]) == ("paused", "stopped_by_user")
    lq("pause", training.id)
    lq("worker", "stop")
    lq.start_worker()
    assert training.job()["status"] == "paused", "a worker resumes only the jobs that a worker paused"

    at_once(lq, "resume", training.id)
    until(lambda: training.job()["attempts"] == 2, "the second attempt")
    training.until(Kind.PHASE, lambda event: event.attempt == 2 and event.data["phase"] == "train")
    os.kill(training.trainer(), signal.SIGSTOP)
    lq("resume", training.id)
    assert training.job()["status"] == "running"
    at_once(lq, "cancel", training.id)
    assert training.job()["status"] == "cancelled"
    lq("cancel", training.id, expect=5)

    lq("retry", training.id)
    training.wait()
    assert result(training) == undisturbed.result
    facts = training.facts()
    assert [one["outcome"] for one in facts["attempts"]] == ["stopped", "stopped", "done"]
    assert facts["incidents"] == []


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.usefixtures("undisturbed")  # compiles the kernels
def test_held_job_and_paused_queue(lq: Lq, workshop: Workshop, tmp_path: Path) -> None:
    lq.settings(autostart=False)
    first = lq.submit(workshop.job_file(tmp_path / "first.yaml", iters=20))
    second = lq.submit(workshop.job_file(tmp_path / "second.yaml", iters=20))
    lq("pause", first.id)
    lq("pause", "--queue")
    lq("pause", "--queue")
    lq.start_worker()
    assert lq.look("status")["queue"]["paused"] is True
    lq("resume", "--queue")
    second.wait()
    assert (first.job()["status"], first.job()["attempts"]) == ("held", 0)
    at_once(lq, "resume", first.id)
    first.wait()


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.usefixtures("undisturbed")  # compiles the kernels
def test_repeated_crash_pauses_the_queue(lq: Lq, tmp_path: Path) -> None:
    shop = Workshop.built(tmp_path)
    lq.settings(autostart=False, notify={"services": [{"url": "json://127.0.0.1:9/", "name": "phone"}]})
    jobs = [lq.submit(shop.job_file(tmp_path / f"{name}.yaml", iters=20)) for name in ("one", "two", "three")]
    weights = shop.model / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    lq.start_worker()
    until(lambda: lq.look("status")["queue"]["paused"], "the queue to be paused")
    assert "lq resume --queue" in lq("status").out
    because = lq.look("status")["queue"]["because"]
    assert because.startswith(f"jobs {jobs[0].id} and {jobs[1].id} crashed")
    assert jobs[2].job()["attempts"] == 0
    assert "needs_you" in {message["event"] for message in jobs[1].facts()["messages"]}

    weights.write_bytes(whole)
    lq("resume", "--queue", *(job.id for job in jobs[:2]))
    for job in jobs:
        job.wait()
