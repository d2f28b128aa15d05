"""A job trains only if its constraints allow it, and interruptions do not change its result."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.model.job import Job
from jobs.model.states import Status
from jobs.scheduling.obstacles import Reading
from tests.harness import Workshop
from tests.integration.overnight import OvernightWorker, WallClock, overnight

NIGHT = "22:00-07:30"

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[OvernightWorker]:
    with overnight(tmp_path / "home", WallClock("2026-11-25 22:30")) as worker:
        yield worker


def queued(home: OvernightWorker, workshop: Workshop, path: Path, *, iters: int = 120, **lq: Any) -> Job:
    [job] = home.submit(workshop.job_file(path, iters=iters, steps_per_eval=iters // 3, lq=lq))
    return job


def adapter(home: OvernightWorker, job: Job) -> str:
    """Return the SHA-256 of a finished adapter."""
    ended = home.job(job.id)
    assert ended.status is Status.SUCCEEDED, ended.detail
    return hashlib.sha256((Path(ended.job_dir) / "adapters" / "adapters.safetensors").read_bytes()).hexdigest()


def undisturbed(home: OvernightWorker, workshop: Workshop, path: Path, *, iters: int = 120) -> str:
    job = queued(home, workshop, path, iters=iters)
    home.begin()
    home.finish()
    return adapter(home, job)


@pytest.mark.slow
@pytest.mark.longest
def test_ten_window_stops_keep_result(home: OvernightWorker, workshop: Workshop, tmp_path: Path) -> None:
    expected = undisturbed(home, workshop, tmp_path / "plain.yaml", iters=900)
    job = queued(home, workshop, tmp_path / "night.yaml", iters=900, window=NIGHT)
    for night in range(1, 11):
        home.begin()
        home.trained(job.id, home.job(job.id).iteration + 5)
        home.clock.advance_to(8)
        home.finish()
        stopped = home.job(job.id)
        assert (stopped.status, stopped.reason) == (Status.WAITING, "window_closed")
        home.begin()
        home.finish()
        assert home.job(job.id).attempts == night, "it does not start outside its window"
        home.clock.advance_to(22)
    home.begin()
    home.finish()
    assert adapter(home, job) == expected
    attempts = home.app.store.attempts.of(job.id)
    assert [attempt.outcome for attempt in attempts] == ["stopped"] * 10 + ["done"]
    assert {attempt.quality for attempt in attempts[1:]} == {"exact"}
    assert home.app.store.attempts.crashes(job.id) == [], "a closed window is not a crash"
    assert [incident.code for incident in home.app.store.incidents.of(job.id)] == ["window_closed"] * 10


@pytest.mark.slow
@pytest.mark.longest
def test_battery_heat_and_use_keep_result(home: OvernightWorker, workshop: Workshop, tmp_path: Path) -> None:
    expected = undisturbed(home, workshop, tmp_path / "plain.yaml", iters=300)
    power = {"require_ac": True, "thermal": "serious"}
    job = queued(home, workshop, tmp_path / "polite.yaml", iters=300, power=power, idle="10min")
    good = Reading(mains=True, charge=80, thermal="nominal", idle_s=3600.0)
    bad = {
        "on_battery": Reading(mains=False, charge=80, thermal="nominal", idle_s=3600.0),
        "too_hot": Reading(mains=True, charge=80, thermal="critical", idle_s=3600.0),
        "in_use": Reading(mains=True, charge=80, thermal="nominal", idle_s=0.0),
    }
    for number, (reason, reading) in enumerate(bad.items(), start=1):
        home.reading = good
        home.begin()
        home.trained(job.id, home.job(job.id).iteration + 5)
        home.reading = reading
        home.finish()
        stopped = home.job(job.id)
        assert (stopped.status, stopped.reason) == (Status.WAITING, reason)
        assert stopped.not_before is not None
        assert stopped.not_before > home.clock()
        home.clock.advance_to(23 if number % 2 else 4)  # after the earliest restart
        home.begin()
        home.finish()
        queued_again = home.job(job.id)
        assert (queued_again.status, queued_again.attempts) == (Status.QUEUED, number), "the constraint still holds"
    home.reading = good
    home.begin()
    home.finish()
    assert adapter(home, job) == expected


@pytest.mark.slow
def test_closed_window_does_not_block_queue(home: OvernightWorker, workshop: Workshop, tmp_path: Path) -> None:
    home.clock.set("2026-11-25 12:00")
    first = queued(home, workshop, tmp_path / "night.yaml", window=NIGHT, priority=5)
    second = queued(home, workshop, tmp_path / "any.yaml")
    home.begin()
    home.finish()
    assert home.job(first.id).status is Status.QUEUED
    assert home.job(second.id).status is Status.SUCCEEDED


@pytest.mark.slow
def test_strict_job_blocks_later_jobs(home: OvernightWorker, workshop: Workshop, tmp_path: Path) -> None:
    home.clock.set("2026-11-25 12:00")
    first = queued(home, workshop, tmp_path / "night.yaml", window=NIGHT, strict=True)
    second = queued(home, workshop, tmp_path / "any.yaml", name="second")
    third = queued(home, workshop, tmp_path / "best.yaml", priority=1)
    home.begin()
    home.finish()
    assert home.job(third.id).status is Status.SUCCEEDED, "it is before the strict job"
    assert [home.job(job.id).attempts for job in (first, second)] == [0, 0]


@pytest.mark.slow
@pytest.mark.longest
def test_missed_deadline_is_reported_once(home: OvernightWorker, workshop: Workshop, tmp_path: Path) -> None:
    # with a date, because submit reads an hour without one by the machine's clock
    file = workshop.job_file(tmp_path / "late.yaml", iters=600, lq={"deadline": "2041-05-06 23:00"})
    [job] = home.submit(file)
    home.clock.set("2041-05-06 23:00:30")
    home.begin()
    home.finish()
    assert home.job(job.id).status is Status.SUCCEEDED
    [missed] = [incident for incident in home.app.store.incidents.of(job.id) if incident.code == "deadline"]
    assert missed.evidence["expected"] > missed.evidence["due"]


@pytest.mark.slow
def test_two_slots_train_two_jobs(workshop: Workshop, tmp_path: Path) -> None:
    with overnight(tmp_path / "two", WallClock("2026-11-25 22:30"), slots=2) as home:
        a, b = home.submit(*(workshop.job_file(tmp_path / f"{name}.yaml") for name in "ab"))
        home.begin()
        home.begin()
        home.finish()
        first, second = home.job(a.id), home.job(b.id)
    assert [first.status, second.status] == [Status.SUCCEEDED] * 2
    assert (second.started_at or 0.0) < (first.ended_at or 0.0), "they run at the same time"
