"""Why a job cannot train now."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from jobs.model.job import Dependency
from jobs.model.outcomes import Reason
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.scheduling.constraints import Constraints, constraints_of
from jobs.scheduling.obstacles import Reading, Why, is_hopeless, of_constraints, of_predecessors

NIGHT = {"window": "22:00-07:30"}


def constraints(**lq: Any) -> Constraints:
    return constraints_of(JobSpec(lq=lq).model_dump(mode="json"))


def at(text: str) -> float:
    return datetime.fromisoformat(f"2026-11-25 {text}").replace(tzinfo=UTC).timestamp()


def why(asked: Constraints, reading: Reading | None = None, *, now: str = "12:00", runs: bool = False) -> Why | None:
    found = of_constraints(asked, reading or Reading(), now=at(now), zone=UTC, runs=runs)
    return found.why if found is not None else None


def test_unconstrained_job_may_always_train() -> None:
    worst = Reading(mains=False, charge=1, thermal="critical", idle_s=0.0)
    assert constraints_of({}) == constraints() == Constraints()
    assert why(constraints(), worst) is None


@pytest.mark.parametrize(
    ("now", "closed"), [("22:00", False), ("23:59", False), ("07:29", False), ("07:30", True), ("21:59", True)]
)
def test_window_includes_its_first_minute(now: str, closed: bool) -> None:
    assert why(constraints(**NIGHT), now=now) == (Why.WINDOW_CLOSED if closed else None)


def test_closed_window_names_its_opening() -> None:
    found = of_constraints(constraints(**NIGHT), Reading(), now=at("12:00"), zone=UTC)
    assert found is not None
    assert (found.text, found.until) == ("its window 22:00-07:30 is closed", at("22:00"))


@pytest.mark.parametrize(
    ("power", "reading", "runs", "expected"),
    [
        ({"require_ac": True}, Reading(mains=False, charge=99), True, Why.ON_BATTERY),
        ({"require_ac": True}, Reading(mains=True, charge=5), True, None),
        ({"require_ac": True}, Reading(), True, None),  # unknown
        ({"min_battery": 30}, Reading(mains=True, charge=5), True, None),
        ({"min_battery": 30}, Reading(mains=False, charge=30), True, None),
        ({"min_battery": 30}, Reading(mains=False, charge=29), True, Why.ON_BATTERY),
        ({"min_battery": 30}, Reading(mains=False, charge=32), False, Why.ON_BATTERY),  # it would stop at once
        ({"min_battery": 30}, Reading(mains=False, charge=33), False, None),
        ({"min_battery": 100}, Reading(mains=False, charge=100), False, None),
        ({"min_battery": 30}, Reading(mains=False), False, None),
        ({"thermal": "serious"}, Reading(thermal="fair"), True, None),
        ({"thermal": "serious"}, Reading(thermal="serious"), True, Why.TOO_HOT),
        ({"thermal": "serious"}, Reading(thermal="critical"), False, Why.TOO_HOT),
        ({"thermal": "serious"}, Reading(), True, None),
    ],
)
def test_power_and_heat_constraints(power: dict[str, Any], reading: Reading, runs: bool, expected: Why | None) -> None:
    assert why(constraints(power=power), reading, runs=runs) == expected


@pytest.mark.parametrize(("idle_s", "expected"), [(599.0, Why.IN_USE), (600.0, None), (None, None)])
def test_machine_in_use_stops_an_idle_job(idle_s: float | None, expected: Why | None) -> None:
    assert why(constraints(idle="10min"), Reading(idle_s=idle_s)) == expected


def test_idle_job_rests_until_idle_again() -> None:
    found = of_constraints(constraints(idle="10min"), Reading(idle_s=20.0), now=0.0, zone=UTC)
    assert found is not None
    assert (found.why, found.rest_s) == (Why.IN_USE, 580.0)
    assert found.text.endswith("after 10 min idle")


def test_stopping_obstacles_are_reasons() -> None:
    for one in (Why.WINDOW_CLOSED, Why.ON_BATTERY, Why.TOO_HOT, Why.IN_USE):
        assert Reason(one.value)


def waits_for(status: Status, *, any_end: bool = False, on: int = 1) -> Dependency:
    return Dependency(job_id=9, on=on, any_end=any_end, status=status)


@pytest.mark.parametrize("status", list(Status))
def test_predecessor_must_end_or_succeed(status: Status) -> None:
    ended = status in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.SKIPPED)
    assert (of_predecessors([waits_for(status)]) is None) == (status is Status.SUCCEEDED)
    assert (of_predecessors([waits_for(status, any_end=True)]) is None) == ended
    assert is_hopeless(waits_for(status)) == (ended and status is not Status.SUCCEEDED)
    assert not is_hopeless(waits_for(status, any_end=True))


def test_obstacle_names_predecessors() -> None:
    two = of_predecessors(
        [waits_for(Status.RUNNING), waits_for(Status.QUEUED, on=2), waits_for(Status.SUCCEEDED, on=3)]
    )
    assert two is not None
    assert two.text == "jobs 1, 2 must succeed first"
    one = of_predecessors([waits_for(Status.RUNNING, any_end=True)])
    assert one is not None
    assert one.text == "job 1 must end first"
    assert of_predecessors([]) is None
