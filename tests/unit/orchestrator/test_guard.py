"""The loss guard's eye: the same conclusion from the same reports, however they came in and whoever looks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.loss.alarms import Alarm, Finding
from jobs.model.events import Event, Kind
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import Course
from jobs.model.spec import EarlyStop, JobSpec, LqSpec, Spike
from jobs.policies.early_stop import Stop
from jobs.policies.quarantine import Quarantine
from orchestrator.store.store import Store
from orchestrator.worker import loss_guard
from orchestrator.worker.loss_guard import LossGuard
from tests.unit.orchestrator.test_store_events import Night

SPEC = JobSpec(iters=1000, batch_size=4, steps_per_report=10, steps_per_eval=100)


@pytest.fixture
def night(tmp_path: Path) -> Iterator[Night]:
    """A job with its first attempt begun."""
    with Store.open(tmp_path / "lq.db") as store:
        yield Night(store)


def watching(night: Night, spec: JobSpec = SPEC, course: Course | None = None) -> LossGuard:
    return LossGuard(night.store, night.store.job(1), spec, course or Course.requested(spec), train_rows=400)


def exploding(night: Night, *, at: int = 500) -> list[Event]:
    """What a trainer says of a run that is sound until an iteration, and then is not."""
    chance = random.Random(0)  # noqa: S311 makes curves, guards nothing
    events = []
    for end in range(10, 1001, 10):
        level = 1.0 if end <= at else 6.0
        losses = [level + chance.gauss(0, 0.02) for _ in range(10)]
        if end % 100 == 0:  # the trainer may tell a validation before the report that ends where it does
            told = {"loss": level, "standard_error": 0.02, "examples": 4, "seconds": 1.0}
            events.append(night.event(Kind.VALIDATION, iteration=end, **told))
        events.append(night.event(Kind.PROGRESS, iteration=end, losses=losses))
    return events


@pytest.mark.parametrize("pieces", [1, 3, 7, 1000])
def test_the_conclusion_does_not_depend_on_when_anybody_looked(night: Night, pieces: int) -> None:
    eye, events = watching(night), exploding(night)
    for start in range(0, len(events), pieces):
        chunk = events[start : start + pieces]
        night.take(*chunk)
        eye.look(chunk)
    assert isinstance(eye.conclusion, Finding)
    assert (eye.conclusion.alarm, eye.conclusion.iteration, eye.conclusion.first_flag) == (Alarm.SPIKE, 530, 510)
    successor = watching(night)
    successor.look()
    assert successor.conclusion == eye.conclusion


def test_what_does_not_tell_is_not_looked_at(night: Night) -> None:
    eye = watching(night)
    eye.look([])
    night.take(*exploding(night))
    assert eye.look([night.event(Kind.PHASE, phase="save")]) == []
    assert eye.conclusion is None
    eye.look()
    assert eye.conclusion is not None


def test_a_guard_that_is_off_concludes_nothing_and_finds_all_the_same(night: Night) -> None:
    off = SPEC.model_copy(update={"lq": LqSpec(spike=Spike(enabled=False))})
    night.take(*exploding(night))
    eye = watching(night, off)
    found = eye.look()
    assert eye.conclusion is None
    assert Alarm.SPIKE in [one.alarm for one in found]
    spike = next(one for one in found if one.alarm is Alarm.SPIKE)
    told = loss_guard.incident(night.store.job(1), 1, spike, acts=False, now=5.0)
    assert told.text.endswith("lq.spike.enabled is false, so nothing is done")
    assert told.evidence["first_flag"] == 510


def test_a_guard_that_is_off_keeps_nothing_from_being_deleted(night: Night) -> None:
    """A loss that stays up keeps a suspicion open for ever; a guard that never acts must not fill the disk with it."""
    off = SPEC.model_copy(update={"lq": LqSpec(spike=Spike(enabled=False))})
    night.take(*exploding(night))
    eyes = {"on": watching(night), "off": watching(night, off)}
    for eye in eyes.values():
        eye.look()
    assert eyes["on"].in_doubt
    assert (eyes["off"].in_doubt, eyes["off"].suspicion) == (False, None)


def test_after_going_back_the_reports_before_it_count_and_no_other(night: Night) -> None:
    night.take(*exploding(night))
    leg = Course.requested(SPEC).legs[0].going_on(400 * 4, because="spike", rollback=1, first_flag=510, salt=1)
    told = loss_guard.incident(
        night.store.job(1),
        1,
        Finding(alarm=Alarm.SPIKE, iteration=530, first_flag=510, text="seen", evidence={}),
        acts=True,
        now=5.0,
    )
    night.store.go_back(1, leg, 400, told, now=5.0)
    assert night.series()[-1][0] == 400
    assert [one.iteration for one in night.store.validations(1)] == [100, 200, 300, 400]
    assert night.store.job(1).iteration == 400
    assert night.store.legs(1) == [leg]
    eye = watching(night)
    eye.look()
    assert eye.conclusion is None


def row(number: int) -> dict[str, object]:
    return {"row": number, "line": f"train.jsonl:{number + 1}", "loss": "nan"}


def lost(night: Night, iteration: int, *rows: int) -> Event:
    data = {"iteration": iteration, "rows": [row(one) for one in rows]}
    return night.event(Kind.WARNING, code=loss_guard.NOT_APPLIED, text="not applied", data=data)


def test_a_row_found_guilty_twice_ends_the_attempt_without_a_death(night: Night) -> None:
    eye = watching(night)
    first, second = lost(night, 23, 16), lost(night, 96, 16)
    night.take(first)
    eye.look([first])
    assert eye.conclusion is None
    night.take(second)
    eye.look([second])
    assert isinstance(eye.conclusion, Quarantine)
    ending = loss_guard.ending(Ending(outcome=Outcome.DIED, reason=Reason.KILLED, detail="-9"), eye.conclusion)
    assert (ending.outcome, ending.reason) == (Outcome.STOPPED, Reason.NOT_FINITE)


def test_of_two_reasons_the_earlier_counts(night: Night) -> None:
    night.take(*exploding(night), lost(night, 10, 3), lost(night, 20, 3))
    eye = watching(night)
    eye.look()
    assert isinstance(eye.conclusion, Quarantine)


def test_a_run_that_is_to_end_early_ends_at_the_validation_that_decided_it(night: Night) -> None:
    asks = SPEC.model_copy(update={"lq": LqSpec(early_stop=EarlyStop(patience=2))})
    night.take(*exploding(night, at=1000))
    eye = watching(night, asks)
    eye.look()
    assert isinstance(eye.conclusion, Stop)
    assert eye.conclusion.iteration == 300
    ended = Course.requested(asks)
    ended = ended.with_leg(ended.legs[0].going_on(1200, because="early stop", ends=True))
    again = watching(night, asks, ended)
    again.look()
    assert again.conclusion is None, "it was decided"


def test_what_the_trainer_refuses_stays_refused(night: Night) -> None:
    night.take(*exploding(night))
    eye = watching(night)
    eye.look()
    refused = Ending(outcome=Outcome.REFUSED, reason=Reason.DATA_INVALID, detail="no")
    assert loss_guard.ending(refused, eye.conclusion) == refused
