"""The loss guard's eye: the same conclusion from the same reports, however they came in and whoever looks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.loss.alarms import Alarm, LossFinding
from jobs.model.events import Event, Kind
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import RunPlan
from jobs.model.spec import EarlyStop, JobSpec, LqSpec, Spike
from jobs.policies.early_stop import Stop
from jobs.policies.quarantine import Quarantine
from orchestrator.store.store import Store
from orchestrator.worker import loss_guard
from orchestrator.worker.loss_guard import LossGuard
from tests.unit.orchestrator.store.test_events import Recorder

SPEC = JobSpec(iters=1000, batch_size=4, steps_per_report=10, steps_per_eval=100)


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Recorder]:
    """A job with its first attempt begun."""
    with Store.open(tmp_path / "lq.db") as store:
        yield Recorder(store)


def watching(context: Recorder, spec: JobSpec = SPEC, run_plan: RunPlan | None = None) -> LossGuard:
    return LossGuard(
        context.store, context.store.jobs.get(1), spec, run_plan or RunPlan.requested(spec), train_rows=400
    )


def exploding(context: Recorder, *, at: int = 500) -> list[Event]:
    """What a trainer says of a run that is sound until an iteration, and then is not."""
    chance = random.Random(0)  # noqa: S311 makes curves, guards nothing
    events = []
    for end in range(10, 1001, 10):
        level = 1.0 if end <= at else 6.0
        losses = [level + chance.gauss(0, 0.02) for _ in range(10)]
        if end % 100 == 0:  # the trainer may tell a validation before the report that ends where it does
            told = {"loss": level, "standard_error": 0.02, "examples": 4, "seconds": 1.0}
            events.append(context.event(Kind.VALIDATION, iteration=end, **told))
        events.append(context.event(Kind.PROGRESS, iteration=end, losses=losses))
    return events


@pytest.mark.parametrize("pieces", [1, 3, 7, 1000])
def test_the_conclusion_does_not_depend_on_when_anybody_looked(context: Recorder, pieces: int) -> None:
    eye, events = watching(context), exploding(context)
    for start in range(0, len(events), pieces):
        chunk = events[start : start + pieces]
        context.take(*chunk)
        eye.look(chunk)
    assert isinstance(eye.conclusion, LossFinding)
    assert (eye.conclusion.alarm, eye.conclusion.iteration, eye.conclusion.first_flag) == (Alarm.SPIKE, 530, 510)
    successor = watching(context)
    successor.look()
    assert successor.conclusion == eye.conclusion


def test_what_does_not_tell_is_not_looked_at(context: Recorder) -> None:
    eye = watching(context)
    eye.look([])
    context.take(*exploding(context))
    assert eye.look([context.event(Kind.PHASE, phase="save")]) == []
    assert eye.conclusion is None
    eye.look()
    assert eye.conclusion is not None


def test_a_guard_that_is_off_concludes_nothing_and_finds_all_the_same(context: Recorder) -> None:
    off = SPEC.model_copy(update={"lq": LqSpec(spike=Spike(enabled=False))})
    context.take(*exploding(context))
    eye = watching(context, off)
    found = eye.look()
    assert eye.conclusion is None
    assert Alarm.SPIKE in [one.alarm for one in found]
    spike = next(one for one in found if one.alarm is Alarm.SPIKE)
    told = loss_guard.incident(context.store.jobs.get(1), 1, spike, acts=False, now=5.0)
    assert told.evidence["action"] == "none; lq.spike.enabled is false"
    assert told.evidence["first_flag"] == 510


def test_a_guard_that_is_off_keeps_nothing_from_being_deleted(context: Recorder) -> None:
    """A loss that stays up keeps a suspicion open for ever; a guard that never acts must not fill the disk with it."""
    off = SPEC.model_copy(update={"lq": LqSpec(spike=Spike(enabled=False))})
    context.take(*exploding(context))
    eyes = {"on": watching(context), "off": watching(context, off)}
    for eye in eyes.values():
        eye.look()
    assert eyes["on"].in_doubt
    assert (eyes["off"].in_doubt, eyes["off"].suspicion) == (False, None)


def test_after_going_back_the_reports_before_it_count_and_no_other(context: Recorder) -> None:
    context.take(*exploding(context))
    stage = RunPlan.requested(SPEC).stages[0].continued(400 * 4, because="spike", rollback=1, first_flag=510, salt=1)
    told = loss_guard.incident(
        context.store.jobs.get(1),
        1,
        LossFinding(alarm=Alarm.SPIKE, iteration=530, first_flag=510, text="seen", evidence={}),
        acts=True,
        now=5.0,
    )
    context.store.run_plans.roll_back(1, stage, 400, told, now=5.0)
    assert context.series()[-1][0] == 400
    assert [one.iteration for one in context.store.metrics.validations(1)] == [100, 200, 300, 400]
    assert context.store.jobs.get(1).iteration == 400
    assert context.store.run_plans.stages(1) == [stage]
    eye = watching(context)
    eye.look()
    assert eye.conclusion is None


def row(number: int) -> dict[str, object]:
    return {"row": number, "line": f"train.jsonl:{number + 1}", "loss": "nan"}


def lost(context: Recorder, iteration: int, *rows: int) -> Event:
    data = {"iteration": iteration, "rows": [row(one) for one in rows]}
    return context.event(Kind.WARNING, code=loss_guard.NOT_APPLIED, text="not applied", data=data)


def test_a_row_found_guilty_twice_ends_the_attempt_without_a_crash(context: Recorder) -> None:
    eye = watching(context)
    first, second = lost(context, 23, 16), lost(context, 96, 16)
    context.take(first)
    eye.look([first])
    assert eye.conclusion is None
    context.take(second)
    eye.look([second])
    assert isinstance(eye.conclusion, Quarantine)
    ending = loss_guard.ending(Ending(outcome=Outcome.CRASHED, reason=Reason.KILLED, detail="-9"), eye.conclusion)
    assert (ending.outcome, ending.reason) == (Outcome.STOPPED, Reason.NOT_FINITE)


def test_of_two_reasons_the_earlier_counts(context: Recorder) -> None:
    context.take(*exploding(context), lost(context, 10, 3), lost(context, 20, 3))
    eye = watching(context)
    eye.look()
    assert isinstance(eye.conclusion, Quarantine)


def test_a_run_that_is_to_end_early_ends_at_the_validation_that_decided_it(context: Recorder) -> None:
    asks = SPEC.model_copy(update={"lq": LqSpec(early_stop=EarlyStop(patience=2))})
    context.take(*exploding(context, at=1000))
    eye = watching(context, asks)
    eye.look()
    assert isinstance(eye.conclusion, Stop)
    assert eye.conclusion.iteration == 300
    ended = RunPlan.requested(asks)
    ended = RunPlan(stages=(*ended.stages, ended.stages[0].continued(1200, because="early stop", ends=True)))
    again = watching(context, asks, ended)
    again.look()
    assert again.conclusion is None, "it was decided"


def test_what_the_trainer_refuses_stays_refused(context: Recorder) -> None:
    context.take(*exploding(context))
    eye = watching(context)
    eye.look()
    refused = Ending(outcome=Outcome.REFUSED, reason=Reason.DATA_INVALID, detail="no")
    assert loss_guard.ending(refused, eye.conclusion) == refused
