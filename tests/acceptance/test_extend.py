"""`lq extend` and `lq retry --set` with real training: what they give equals a run that was submitted like that."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.model.events import Kind
from jobs.model.job_dir import JobDir
from tests.acceptance.undisturbed import Undisturbed
from tests.harness import Lq, Training, Workshop, kill, result

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300, func_only=True)]


def extended(lq: Lq, workshop: Workshop, folder: Path, *, first: int) -> Training:
    """Return a run that succeeded after some iterations and is queued again for as many as the undisturbed one."""
    training = lq.submit(workshop.job_file(folder / "job.yaml", iters=first))
    training.wait()
    lq("extend", training.id, "--iters", 120)
    return training


def test_extended_run_equals_longer_one(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    training = extended(lq, workshop, tmp_path, first=80)
    training.wait()
    assert result(training) == undisturbed.result
    first, second = training.facts()["attempts"]
    assert (first["reason"], second["first_iteration"], second["quality"]) == ("completed", 80, "exact")
    assert [one["code"] for one in training.facts()["incidents"]] == ["extended"]
    assert "120" in (training.folder.report / "report.md").read_text()
    lq("verify", training.id)


def test_killed_extension_is_exact(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    training = extended(lq, workshop, tmp_path, first=40)
    training.until(Kind.CHECKPOINT, lambda event: event.data["iteration"] > 60)
    worker = lq.worker()
    kill(training.trainer())
    kill(worker)
    lq.start_worker()
    training.wait()
    assert result(training) == undisturbed.result
    assert [one["first_iteration"] for one in training.facts()["attempts"]][:2] == [0, 40]


def test_end_within_an_update_is_exact(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    """82 iterations are neither whole updates nor whole reports, so it goes on from 80."""
    training = extended(lq, workshop, tmp_path, first=82)
    training.wait()
    assert result(training) == undisturbed.result
    assert [one["first_iteration"] for one in training.facts()["attempts"]] == [0, 80]


@pytest.mark.longest
def test_retry_with_settings_is_a_new_run(lq: Lq, workshop: Workshop, undisturbed: Undisturbed, tmp_path: Path) -> None:
    training = lq.submit(workshop.job_file(tmp_path / "job.yaml", iters=40))
    training.wait()
    before = result(training)
    (same,) = lq.json("retry", training.id, "--set", "iters=120")["jobs"]
    (other,) = lq.json("retry", training.id, "--set", "iters=120", "--set", "seed=7")["jobs"]
    (warm,) = lq.json("retry", training.id, "--set", "iters=80", "--from", 40)["jobs"]
    folders = [next((lq.home / "jobs").glob(f"{job['id']}-*")) for job in (same, other, warm)]
    runs = [Training(lq, int(folder.name.partition("-")[0]), JobDir(folder)) for folder in folders]
    for run in runs:
        run.wait()
    assert result(runs[0]) == undisturbed.result
    assert result(runs[1]).final != undisturbed.result.final, "the seed matters"
    assert runs[2].facts()["validations"][0]["loss"] == before.validations[-1][1], "it starts with these weights"
    assert result(training) == before
