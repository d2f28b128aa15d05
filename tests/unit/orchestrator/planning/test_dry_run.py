"""When each rehearsed job would train: one after the other, in its window, against its deadline."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from jobs.estimates.disk import Need
from jobs.estimates.dry_run import Failure, Forecast
from jobs.model.errors import NotAllowed
from jobs.model.job import Job
from jobs.model.outcomes import Reason
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from orchestrator.core.app import App
from orchestrator.core.paths import Home as HomeFolder
from orchestrator.planning import dry_run
from orchestrator.planning.dry_run import Candidate, Finding
from orchestrator.scheduling import device_lock
from tests.unit.orchestrator.cli_homes import Home
from workers.system import processes

HOUR = 3600.0
NIGHT = Need(adapter=0, optimizer=0, checkpoints=1, adapters=0, log=0)


def at(hour: int, minute: int = 0, *, day: int = 1) -> float:
    return datetime(2026, 5, day, hour, minute, tzinfo=UTC).timestamp()


def found(hours: float | None, *, job: Job | None = None, fails: bool = False, **lq: Any) -> Finding:
    """Return what was found of a run that takes so many hours; None where its rehearsal came to nothing."""
    spec = JobSpec(lq=lq)
    forecast = None
    if hours is not None:
        forecast = Forecast(
            iterations=1,
            validations=0,
            checkpoints=0,
            starts=1,
            start_s=0.0,
            train_s=hours * HOUR,
            validation_s=0.0,
            checkpoint_s=0.0,
            test_s=0.0,
        )
    return Finding(
        candidate=Candidate(
            name="x",
            file="x.yaml",
            job=job,
            spec=spec,
            run_plan=RunPlan.requested(spec),
            need=NIGHT,
            shortage=None,
            invalid=None,
            notes=(),
        ),
        ending=None,
        tried=None,
        peak_bytes=None,
        limit_bytes=None,
        data=None,
        forecast=forecast,
        failures=(Failure(code="crashed", text="why"),) if fails or hours is None else (),
        cautions=(),
    )


def table(*findings: Finding, begins_at: float, slots: int = 1) -> list[tuple[float | None, float | None]]:
    hours = dry_run.timetable(findings, begins_at=begins_at, slots=slots, zone=UTC)
    return [(one.begins_at, one.ends_at) for one in hours]


def test_jobs_train_one_after_the_other() -> None:
    assert table(found(2), found(1), begins_at=at(20)) == [(at(20), at(22)), (at(22), at(23))]


def test_a_window_is_waited_for_and_kept() -> None:
    assert table(found(3, window="22:00-00:00"), begins_at=at(20)) == [(at(22), at(23, day=2))]


def test_a_job_whose_window_is_closed_lets_others_go_first() -> None:
    assert table(found(3, window="22:00-06:00"), found(1), begins_at=at(20)) == [
        (at(22), at(1, day=2)),
        (at(20), at(21)),
    ]


def test_a_job_that_went_first_may_end_after_the_window_has_opened() -> None:
    assert table(found(3, window="22:00-06:00"), found(3), begins_at=at(20)) == [
        (at(23), at(2, day=2)),
        (at(20), at(23)),
    ]


def test_a_turn_that_does_not_come_in_a_year_is_not_known() -> None:
    long, behind = table(found(400 * 24), found(1), begins_at=at(20))
    assert long == (at(20), at(20) + 400 * 24 * HOUR)
    assert behind == (None, None)


def test_a_strict_job_lets_nobody_go_first() -> None:
    assert table(found(1, window="22:00-06:00", strict=True), found(1), begins_at=at(20)) == [
        (at(22), at(23)),
        (at(23), at(0, day=2)),
    ]


def test_two_slots_train_two_jobs_at_a_time() -> None:
    assert table(found(2), found(1), found(1), begins_at=at(20), slots=2) == [
        (at(20), at(22)),
        (at(20), at(21)),
        (at(21), at(22)),
    ]


def test_what_would_fail_takes_no_part_of_the_night() -> None:
    assert table(found(None), found(9, fails=True), found(1), begins_at=at(20)) == [
        (None, None),
        (at(20), at(5, day=2)),
        (at(20), at(21)),
    ]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Give a home with a store."""
    return Home(tmp_path / "home")


def test_a_held_job_is_told_its_hours_and_takes_none(home: Home) -> None:
    held = dataclasses.replace(home.queued(), status=Status.HELD)
    assert table(found(2, job=held), found(1), begins_at=at(20)) == [(at(20), at(22)), (at(20), at(21))]


def test_a_waiting_job_begins_when_it_may(home: Home) -> None:
    waiting = dataclasses.replace(home.queued(), status=Status.WAITING, not_before=at(21))
    assert table(found(1, job=waiting), begins_at=at(20)) == [(at(21), at(22))]


def test_a_job_waits_for_the_one_it_names(home: Home) -> None:
    first, second = home.queued("first"), home.queued("second")
    second_found = found(1, job=second)
    waits = dataclasses.replace(second_found.candidate, after=(first.id,))
    assert table(dataclasses.replace(second_found, candidate=waits), found(2, job=first), begins_at=at(20)) == [
        (at(22), at(23)),
        (at(20), at(22)),
    ]


def test_an_hour_without_a_day_is_due_after_the_job_was_asked_for(home: Home) -> None:
    yesterday = dataclasses.replace(home.queued(), submitted_at=at(23))
    new, old = dry_run.timetable(
        [found(1, deadline="07:30"), found(1, deadline="07:30", job=yesterday)], begins_at=at(12, day=2), zone=UTC
    )
    assert new.due_at == at(7, 30, day=3)
    assert old.due_at == at(7, 30, day=2)


# --- beside a training ---


def test_nothing_is_rehearsed_beside_a_training_that_lives(home: Home) -> None:
    home.running("night", child=processes.identity())
    refusal = r"job 1 \(night\) is training; wait for the end with lq wait 1, stop it .*lq pause 1, or .*--anyway"
    with App(HomeFolder(home.path)) as app:
        with pytest.raises(NotAllowed, match=refusal), dry_run.at_rest(app, anyway=False):
            raise AssertionError("it is not at rest")
        with dry_run.at_rest(app, anyway=True):
            assert device_lock.user(app.home) is not None


def test_no_job_and_no_second_rehearsal_starts_beside_one(home: Home) -> None:
    with App(HomeFolder(home.path)) as app, dry_run.at_rest(app, anyway=False):
        found = device_lock.obstacle(app.home)
        assert found is not None
        assert found.text == "the device is used by lq check"
        refusal = r"the device is used by lq check \(pid \d+\); end that, or run beside it with --anyway"
        with pytest.raises(NotAllowed, match=refusal), dry_run.at_rest(app, anyway=False):
            raise AssertionError("it is not at rest")
    assert device_lock.user(HomeFolder(home.path)) is None


def test_a_training_that_is_gone_is_no_reason_to_refuse(home: Home) -> None:
    home.ended(Status.FAILED, Reason.CRASHED, name="over")
    gone = dataclasses.replace(processes.identity(), create_time=1.0)
    home.running("night", child=gone)
    with App(HomeFolder(home.path)) as app, dry_run.at_rest(app, anyway=False):
        assert device_lock.user(app.home) is not None


def test_a_home_without_a_store_is_at_rest(tmp_path: Path) -> None:
    with App(HomeFolder(tmp_path / "none")) as app, dry_run.at_rest(app, anyway=False):
        assert dry_run.of_queue(app) == []
    assert not (tmp_path / "none").exists()
