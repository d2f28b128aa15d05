"""pause, resume, hold, release and cancel, of jobs that really train, twice, and from two terminals at once."""

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
    """Type the same command in two terminals."""
    with ThreadPoolExecutor(2) as terminals:
        return list(terminals.map(lambda _: lq(*words, expect=expect), range(2)))


@pytest.mark.slow
def test_a_running_job_is_paused_resumed_and_cancelled_from_two_terminals(
    lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml"))
    training.trained(20)
    trainer = training.trainer()
    os.kill(trainer, signal.SIGSTOP)  # so that it is not done before it is asked; who asks it wakes it
    at_once(lq, "pause", training.id)
    assert not lives(trainer)
    assert (training.job()["status"], training.job()["reason"]) == ("paused", "stopped_by_user")
    assert f"job {training.id} is paused already" in lq("pause", training.id).out
    lq("worker", "stop")
    lq.start_worker()
    assert training.job()["status"] == "paused", "a worker resumes only what a worker paused"

    at_once(lq, "resume", training.id)
    until(lambda: training.job()["attempts"] == 2, "the second attempt")
    training.until(Kind.PHASE, lambda event: event.attempt == 2 and event.data["phase"] == "train")
    os.kill(training.trainer(), signal.SIGSTOP)
    assert f"job {training.id} is running already" in lq("resume", training.id).out
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
@pytest.mark.usefixtures("undisturbed")  # so that the kernels are there
def test_a_held_job_lets_others_go_first_and_a_paused_queue_lets_none(
    lq: Lq, workshop: Workshop, tmp_path: Path
) -> None:
    lq.settings(autostart=False)
    first = lq.submit(workshop.job_file(tmp_path / "first.yaml", iters=20))
    second = lq.submit(workshop.job_file(tmp_path / "second.yaml", iters=20))
    lq("hold", first.id)
    lq("pause", "--queue")
    lq("pause", "--queue")
    lq.start_worker()
    assert lq.look("status")["queue"]["paused"] is True
    lq("resume", "--queue")
    second.wait()
    assert (first.job()["status"], first.job()["attempts"]) == ("held", 0)
    at_once(lq, "release", first.id)
    first.wait()


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.usefixtures("undisturbed")  # so that the kernels are there
def test_two_jobs_that_die_of_the_same_cause_before_they_train_pause_the_queue(lq: Lq, tmp_path: Path) -> None:
    shop = Workshop.built(tmp_path)
    lq.settings(autostart=False, notify={"services": [{"url": "json://127.0.0.1:9/", "name": "phone"}]})
    jobs = [lq.submit(shop.job_file(tmp_path / f"{name}.yaml", iters=20)) for name in ("one", "two", "three")]
    weights = shop.model / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    lq.start_worker()
    until(lambda: lq.look("status")["queue"]["paused"], "the queue to be paused")
    said = lq("status").out
    assert "paused" in said
    assert "lq resume --queue" in said
    because = lq.look("status")["queue"]["because"]
    assert because.startswith(f"jobs {jobs[0].id} and {jobs[1].id} both died of crashed within ten minutes")
    assert jobs[2].job()["attempts"] == 0
    assert "needs_you" in {message["event"] for message in jobs[1].facts()["messages"]}

    weights.write_bytes(whole)
    lq("resume", "--queue", *(job.id for job in jobs[:2]))
    for job in jobs:
        job.wait()
