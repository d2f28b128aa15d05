"""A job trains only when it may, and what it comes to does not know how often it was stopped."""

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
from tests.integration.nights import Hours, Inside, inside

NIGHT = "22:00-07:30"

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Inside]:
    with inside(tmp_path / "home", Hours("2026-11-25 22:30")) as made:
        yield made


def queued(home: Inside, workshop: Workshop, path: Path, *, iters: int = 120, **lq: Any) -> Job:
    [job] = home.submit(workshop.job_file(path, iters=iters, steps_per_eval=iters // 3, lq=lq))
    return job


def adapter(home: Inside, job: Job) -> str:
    """Return the SHA-256 of a finished adapter."""
    ended = home.job(job.id)
    assert ended.status is Status.SUCCEEDED, ended.detail
    return hashlib.sha256((Path(ended.job_dir) / "adapters" / "adapters.safetensors").read_bytes()).hexdigest()


def undisturbed(home: Inside, workshop: Workshop, path: Path, *, iters: int = 120) -> str:
    job = queued(home, workshop, path, iters=iters)
    home.begin()
    home.rest()
    return adapter(home, job)


@pytest.mark.slow
@pytest.mark.longest
def test_a_job_that_its_window_stopped_ten_times_ends_the_same(
    home: Inside, workshop: Workshop, tmp_path: Path
) -> None:
    wanted = undisturbed(home, workshop, tmp_path / "plain.yaml", iters=900)
    job = queued(home, workshop, tmp_path / "night.yaml", iters=900, window=NIGHT)
    for context in range(1, 11):
        home.begin()
        home.trained(job.id, home.job(job.id).iteration + 5)
        home.hours.turn_to(8)
        home.rest()
        stopped = home.job(job.id)
        assert (stopped.status, stopped.reason) == (Status.WAITING, "window_closed")
        assert stopped.detail == f"its window {NIGHT} is closed"
        home.begin()
        home.rest()
        assert home.job(job.id).attempts == context, "outside its window it is not started"
        home.hours.turn_to(22)
    home.begin()
    home.rest()
    assert adapter(home, job) == wanted
    attempts = home.app.store.attempts.of(job.id)
    assert [one.outcome for one in attempts] == ["stopped"] * 10 + ["done"]
    assert {one.quality for one in attempts[1:]} == {"exact"}
    assert home.app.store.attempts.crashes(job.id) == [], "a window that closes is no death"
    told = [one.text for one in home.app.store.incidents.of(job.id) if one.code == "window_closed"]
    assert len(told) == 10
    assert all(text.endswith(f": its window {NIGHT} is closed") for text in told)


@pytest.mark.slow
@pytest.mark.longest
def test_a_job_gives_way_to_battery_heat_and_its_user_and_ends_the_same(
    home: Inside, workshop: Workshop, tmp_path: Path
) -> None:
    wanted = undisturbed(home, workshop, tmp_path / "plain.yaml", iters=300)
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
        home.rest()
        stopped = home.job(job.id)
        assert (stopped.status, stopped.reason) == (Status.WAITING, reason)
        assert stopped.not_before is not None
        assert stopped.not_before > home.hours()
        home.hours.turn_to(23 if number % 2 else 4)  # long past that
        home.begin()
        home.rest()
        queued_again = home.job(job.id)
        assert (queued_again.status, queued_again.attempts) == (Status.QUEUED, number), "it is still so"
    home.reading = good
    home.begin()
    home.rest()
    assert adapter(home, job) == wanted


@pytest.mark.slow
def test_a_job_outside_its_window_keeps_none_behind_it_from_training(
    home: Inside, workshop: Workshop, tmp_path: Path
) -> None:
    home.hours.set("2026-11-25 12:00")
    first = queued(home, workshop, tmp_path / "night.yaml", window=NIGHT, priority=5)
    second = queued(home, workshop, tmp_path / "any.yaml")
    home.begin()
    home.rest()
    assert home.job(first.id).status is Status.QUEUED
    assert home.job(second.id).status is Status.SUCCEEDED


@pytest.mark.slow
def test_a_strict_job_keeps_those_behind_it_from_training(home: Inside, workshop: Workshop, tmp_path: Path) -> None:
    home.hours.set("2026-11-25 12:00")
    first = queued(home, workshop, tmp_path / "night.yaml", window=NIGHT, strict=True)
    second = queued(home, workshop, tmp_path / "any.yaml", name="second")
    third = queued(home, workshop, tmp_path / "best.yaml", priority=1)
    home.begin()
    home.rest()
    assert home.job(third.id).status is Status.SUCCEEDED, "it stands before the strict one"
    assert [home.job(one.id).attempts for one in (first, second)] == [0, 0]


@pytest.mark.slow
@pytest.mark.longest
def test_a_deadline_that_cannot_be_met_is_told_once_and_the_job_goes_on(
    home: Inside, workshop: Workshop, tmp_path: Path
) -> None:
    # a day of its own: submit asks the machine's clock, which an hour without a day would be the next of
    file = workshop.job_file(tmp_path / "late.yaml", iters=600, lq={"deadline": "2041-05-06 23:00"})
    [job] = home.submit(file)
    home.hours.set("2041-05-06 23:00:30")
    home.begin()
    home.rest()
    assert home.job(job.id).status is Status.SUCCEEDED
    [told] = [one for one in home.app.store.incidents.of(job.id) if one.code == "deadline"]
    assert told.text.startswith("wanted by 23:00, and at its speed done at 23:")
    assert told.evidence["expected"] > told.evidence["due"]


@pytest.mark.slow
def test_two_jobs_train_at_a_time_where_there_are_two_slots_and_both_are_reckoned_to_fit(
    workshop: Workshop, tmp_path: Path
) -> None:
    with inside(tmp_path / "two", Hours("2026-11-25 22:30"), slots=2) as home:
        a, b = home.submit(*(workshop.job_file(tmp_path / f"{name}.yaml") for name in "ab"))
        home.begin()
        home.begin()
        home.rest()
        first, second = home.job(a.id), home.job(b.id)
    assert [first.status, second.status] == [Status.SUCCEEDED] * 2
    assert (second.started_at or 0.0) < (first.ended_at or 0.0), "their lives overlap"
