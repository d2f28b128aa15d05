"""When each checked job would train: one after the other, in its window, against its deadline."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from jobs.estimates.disk import SpaceNeed
from jobs.estimates.dry_run import DryRunFailure
from jobs.estimates.estimate import Source, TimeEstimate
from jobs.model.errors import NotAllowed
from jobs.model.job import Job
from jobs.model.outcomes import Reason
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.scheduling.obstacles import Why
from jobs.scheduling.timeline import PendingJob
from orchestrator.core.app import App
from orchestrator.core.paths import Home as HomeFolder
from orchestrator.planning import dry_run
from orchestrator.planning.dry_run import DryRunRequest, DryRunResult
from orchestrator.scheduling import device_lock
from tests.unit.orchestrator.cli_homes import Home
from workers.system import processes

HOUR = 3600.0
NEED = SpaceNeed(adapter=0, optimizer=0, checkpoints=1, adapters=0, log=0)


def at(hour: int, minute: int = 0, *, day: int = 1) -> float:
    return datetime(2026, 5, day, hour, minute, tzinfo=UTC).timestamp()


def found(hours: float | None, *, job: Job | None = None, fails: bool = False, **lq: Any) -> DryRunResult:
    """Return the result for a run of this many hours; None if its dry run failed."""
    spec = JobSpec(lq={"name": "x", **lq})
    time = None
    if hours is not None:
        time = TimeEstimate(
            iterations=1,
            validations=0,
            checkpoints=0,
            starts=1,
            start_s=0.0,
            train_s=hours * HOUR,
            validation_s=0.0,
            checkpoint_s=0.0,
            test_s=0.0,
            spread=1.0,
            source=Source.DRY_RUN,
            because="measured",
        )
    return DryRunResult(
        request=DryRunRequest(
            file="x.yaml",
            job=job,
            spec=spec,
            run_plan=RunPlan.requested(spec),
            need=NEED,
        ),
        ending=None,
        measured=None,
        peak_bytes=None,
        limit_bytes=None,
        data=None,
        time=time,
        failures=(DryRunFailure(code="crashed", text="why"),) if fails or hours is None else (),
        cautions=(),
    )


def table(*results: DryRunResult, now: float, slots: int = 1) -> list[tuple[float | None, float | None]]:
    hours = dry_run.timetables(results, now=now, slots=slots, zone=UTC)
    return [(one.begins_at, one.ends_at) for one in hours]


def test_jobs_train_one_after_the_other() -> None:
    assert table(found(2), found(1), now=at(20)) == [(at(20), at(22)), (at(22), at(23))]


def test_job_waits_for_its_window() -> None:
    assert table(found(3, window="22:00-00:00"), now=at(20)) == [(at(22), at(23, day=2))]


def test_closed_window_lets_others_go_first() -> None:
    assert table(found(3, window="22:00-06:00"), found(1), now=at(20)) == [
        (at(22), at(1, day=2)),
        (at(20), at(21)),
    ]


def test_earlier_job_may_delay_the_window() -> None:
    assert table(found(3, window="22:00-06:00"), found(3), now=at(20)) == [
        (at(23), at(2, day=2)),
        (at(20), at(23)),
    ]


def test_times_beyond_a_year_are_unknown() -> None:
    long, behind = table(found(400 * 24), found(1), now=at(20))
    assert long == (at(20), at(20) + 400 * 24 * HOUR)
    assert behind == (None, None)


def test_strict_job_lets_no_other_go_first() -> None:
    assert table(found(1, window="22:00-06:00", strict=True), found(1), now=at(20)) == [
        (at(22), at(23)),
        (at(23), at(0, day=2)),
    ]


def test_two_slots_train_two_jobs() -> None:
    assert table(found(2), found(1), found(1), now=at(20), slots=2) == [
        (at(20), at(22)),
        (at(20), at(21)),
        (at(21), at(22)),
    ]


def test_failing_job_takes_no_time() -> None:
    assert table(found(None), found(9, fails=True), found(1), now=at(20)) == [
        (None, None),
        (at(20), at(5, day=2)),
        (at(20), at(21)),
    ]


def test_jobs_begin_after_a_running_one() -> None:
    running = PendingJob(id=7, seconds=3 * HOUR, running=True)
    (times,) = dry_run.timetables([found(1)], now=at(20), running=[running], zone=UTC)
    assert (times.begins_at, times.ends_at) == (at(23), at(0, day=2))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """Give a home with a store."""
    return Home(tmp_path / "home")


def test_held_job_takes_no_time(home: Home) -> None:
    held = dataclasses.replace(home.queued(), status=Status.HELD)
    assert table(found(2, job=held), found(1), now=at(20)) == [(at(20), at(22)), (at(20), at(21))]


def test_waiting_job_begins_when_it_may(home: Home) -> None:
    waiting = dataclasses.replace(home.queued(), status=Status.WAITING, not_before=at(21))
    assert table(found(1, job=waiting), now=at(20)) == [(at(21), at(22))]


def test_job_waits_for_its_predecessor(home: Home) -> None:
    first, second = home.queued("first"), home.queued("second")
    second_found = found(1, job=second)
    waits = dataclasses.replace(second_found.request, after=(first.id,))
    assert table(dataclasses.replace(second_found, request=waits), found(2, job=first), now=at(20)) == [
        (at(22), at(23)),
        (at(20), at(22)),
    ]


def test_deadline_counts_from_submission(home: Home) -> None:
    yesterday = dataclasses.replace(home.queued(), submitted_at=at(23))
    new, old = dry_run.timetables(
        [found(1, deadline="07:30"), found(1, deadline="07:30", job=yesterday)], now=at(12, day=2), zone=UTC
    )
    assert new.due_at == at(7, 30, day=3)
    assert old.due_at == at(7, 30, day=2)


# --- while a job trains ---


def test_check_refuses_beside_a_training(home: Home) -> None:
    home.running("night", child=processes.identity())
    refusal = r"job 1 \(night\) is training; wait for the end with lq wait 1, stop it .*lq pause 1, or .*--anyway"
    with App(HomeFolder(home.path)) as app:
        with pytest.raises(NotAllowed, match=refusal), dry_run.exclusive_device(app, anyway=False):
            raise AssertionError("it is not at rest")
        with dry_run.exclusive_device(app, anyway=True):
            assert device_lock.user(app.home) is not None


def test_check_keeps_the_device_to_itself(home: Home) -> None:
    with App(HomeFolder(home.path)) as app, dry_run.exclusive_device(app, anyway=False):
        found = device_lock.obstacle(app.home)
        assert found is not None
        assert found.why is Why.IN_USE
        assert found.text.endswith("used by lq check")
        refusal = r"the device is used by lq check \(pid \d+\); end that, or share it with --anyway"
        with pytest.raises(NotAllowed, match=refusal), dry_run.exclusive_device(app, anyway=False):
            raise AssertionError("it is not at rest")
    assert device_lock.user(HomeFolder(home.path)) is None


def test_check_ignores_a_dead_training(home: Home) -> None:
    home.ended(Status.FAILED, Reason.CRASHED, name="over")
    gone = dataclasses.replace(processes.identity(), create_time=1.0)
    home.running("night", child=gone)
    with App(HomeFolder(home.path)) as app, dry_run.exclusive_device(app, anyway=False):
        assert device_lock.user(app.home) is not None


def test_check_makes_no_home(tmp_path: Path) -> None:
    with App(HomeFolder(tmp_path / "none")) as app, dry_run.exclusive_device(app, anyway=False):
        assert dry_run.of_queue(app) == []
    assert not (tmp_path / "none").exists()
