"""The loss guard of one job: the same reports lead to the same conclusion, in any batches and any worker."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.loss.alarms import Alarm, LossFinding
from jobs.model.events import Event, Kind
from jobs.model.job import Incident
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
    """Open a store with a job in its first attempt."""
    with Store.open(tmp_path / "lq.db") as store:
        yield Recorder(store)


def watching(context: Recorder, spec: JobSpec = SPEC, run_plan: RunPlan | None = None) -> LossGuard:
    return LossGuard(
        context.store, context.store.jobs.get(1), spec, run_plan or RunPlan.requested(spec), train_rows=400
    )


def exploding(context: Recorder, *, at: int = 500) -> list[Event]:
    """Return the events of a run whose loss explodes after an iteration."""
    chance = random.Random(0)  # noqa: S311 makes curves, no secret
    events = []
    for end in range(10, 1001, 10):
        level = 1.0 if end <= at else 6.0
        losses = [level + chance.gauss(0, 0.02) for _ in range(10)]
        if end % 100 == 0:  # before the report that ends at the same iteration
            measured = {"loss": level, "standard_error": 0.02, "examples": 4, "seconds": 1.0}
            events.append(context.event(Kind.VALIDATION, iteration=end, **measured))
        events.append(context.event(Kind.PROGRESS, iteration=end, losses=losses))
    return events


@pytest.mark.parametrize("pieces", [1, 3, 7, 1000])
def test_batches_do_not_change_conclusion(context: Recorder, pieces: int) -> None:
    guard, events = watching(context), exploding(context)
    for start in range(0, len(events), pieces):
        chunk = events[start : start + pieces]
        context.ingest(*chunk)
        guard.look(chunk)
    assert isinstance(guard.conclusion, LossFinding)
    assert (guard.conclusion.alarm, guard.conclusion.iteration, guard.conclusion.first_flag) == (Alarm.SPIKE, 530, 510)
    successor = watching(context)
    successor.look()
    assert successor.conclusion == guard.conclusion


def test_irrelevant_events_are_not_folded(context: Recorder) -> None:
    guard = watching(context)
    guard.look([])
    context.ingest(*exploding(context))
    assert guard.look([context.event(Kind.PHASE, phase="save")]) == []
    assert guard.conclusion is None
    guard.look()
    assert guard.conclusion is not None


def test_disabled_guard_only_reports(context: Recorder) -> None:
    off = SPEC.model_copy(update={"lq": LqSpec(spike=Spike(enabled=False))})
    context.ingest(*exploding(context))
    guard = watching(context, off)
    findings = guard.look()
    assert guard.conclusion is None
    spike = next(finding for finding in findings if finding.alarm is Alarm.SPIKE)
    incident = loss_guard.note(spike, acts=False)
    assert incident.evidence["first_flag"] == 510
    assert "lq.spike.enabled" in incident.evidence["action"]


def test_disabled_guard_allows_pruning(context: Recorder) -> None:
    """A suspicion may stay open for the rest of the run; without a rollback it must not fill the disk."""
    off = SPEC.model_copy(update={"lq": LqSpec(spike=Spike(enabled=False))})
    context.ingest(*exploding(context))
    guards = {"on": watching(context), "off": watching(context, off)}
    for guard in guards.values():
        guard.look()
    assert guards["on"].in_doubt
    assert (guards["off"].in_doubt, guards["off"].suspicion) == (False, None)


def test_rollback_discards_later_reports(context: Recorder) -> None:
    context.ingest(*exploding(context))
    stage = RunPlan.requested(SPEC).stages[0].continued(400 * 4, because="spike", rollback=1, first_flag=510, salt=1)
    incident = Incident(job_id=1, attempt=1, time=5.0, code="spike", text="seen", evidence={"first_flag": 510})
    context.store.run_plans.roll_back(1, stage, 400, incident, now=5.0)
    assert context.series()[-1][0] == 400
    assert [validation.iteration for validation in context.store.metrics.validations(1)] == [100, 200, 300, 400]
    assert context.store.jobs.get(1).iteration == 400
    assert context.store.run_plans.stages(1) == [stage]
    guard = watching(context)
    guard.look()
    assert guard.conclusion is None


def row(number: int) -> dict[str, object]:
    return {"row": number, "line": f"train.jsonl:{number + 1}", "loss": "nan"}


def lost(context: Recorder, iteration: int, *rows: int) -> Event:
    data = {"iteration": iteration, "rows": [row(number) for number in rows]}
    return context.event(Kind.WARNING, code=loss_guard.NOT_APPLIED, text="not applied", data=data)


def test_second_bad_update_quarantines_row(context: Recorder) -> None:
    guard = watching(context)
    first, second = lost(context, 23, 16), lost(context, 96, 16)
    context.ingest(first)
    guard.look([first])
    assert guard.conclusion is None
    context.ingest(second)
    guard.look([second])
    assert isinstance(guard.conclusion, Quarantine)
    ending = loss_guard.override_ending(
        Ending(outcome=Outcome.CRASHED, reason=Reason.KILLED, detail="-9"), guard.conclusion
    )
    assert (ending.outcome, ending.reason) == (Outcome.STOPPED, Reason.NOT_FINITE)


def test_earlier_conclusion_wins(context: Recorder) -> None:
    context.ingest(*exploding(context), lost(context, 10, 3), lost(context, 20, 3))
    guard = watching(context)
    guard.look()
    assert isinstance(guard.conclusion, Quarantine)


def test_early_stop_at_deciding_validation(context: Recorder) -> None:
    asks = SPEC.model_copy(update={"lq": LqSpec(early_stop=EarlyStop(patience=2))})
    context.ingest(*exploding(context, at=1000))
    guard = watching(context, asks)
    guard.look()
    assert isinstance(guard.conclusion, Stop)
    assert guard.conclusion.iteration == 300
    ended = RunPlan.requested(asks)
    ended = RunPlan(stages=(*ended.stages, ended.stages[0].continued(1200, because="early stop", ends=True)))
    again = watching(context, asks, ended)
    again.look()
    assert again.conclusion is None, "the run plan has an end already"


def test_refused_ending_is_kept(context: Recorder) -> None:
    context.ingest(*exploding(context))
    guard = watching(context)
    guard.look()
    refused = Ending(outcome=Outcome.REFUSED, reason=Reason.DATA_INVALID, detail="no")
    assert loss_guard.override_ending(refused, guard.conclusion) == refused
