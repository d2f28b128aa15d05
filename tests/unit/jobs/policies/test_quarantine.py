"""Quarantine of rows that make the loss non-finite twice."""

from __future__ import annotations

import pytest

from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.run_plan import RunPlan
from jobs.model.spec import JobSpec
from jobs.model.states import Status
from jobs.policies import after_attempt
from jobs.policies.decision import Decision, History
from jobs.policies.quarantine import NonFiniteRows, Quarantine, quarantine, stage_without
from jobs.policies.rollback import RollbackCandidate

SPEC = JobSpec(iters=1000, batch_size=4)


def reported(*reports: tuple[int, tuple[int, ...]]) -> list[NonFiniteRows]:
    return [
        NonFiniteRows(iteration=iteration, rows=rows, lines=tuple(f"train.jsonl:{row + 1}" for row in rows))
        for iteration, rows in reports
    ]


def test_row_is_left_out_the_second_time() -> None:
    assert quarantine(reported((23, (16,))), already=(), train_rows=200) is None
    found = quarantine(reported((23, (16,)), (96, (16,))), already=(), train_rows=200)
    assert found == Quarantine(rows=(16,), lines=("train.jsonl:17",), iteration=96, too_many=False)


def test_repeated_iteration_counts_once() -> None:
    assert quarantine(reported((23, (16,)), (23, (16,))), already=(), train_rows=200) is None


def test_quarantined_rows_are_ignored() -> None:
    assert quarantine(reported((23, (16,)), (96, (16,))), already={16}, train_rows=200) is None


@pytest.mark.parametrize(("rows", "of", "too_many"), [(1, 10, False), (2, 199, True), (2, 200, False), (3, 200, True)])
def test_more_than_one_percent_is_too_many(rows: int, of: int, too_many: bool) -> None:
    bad = tuple(range(rows))
    found = quarantine(reported((1, bad), (2, bad)), already=(), train_rows=of)
    assert found is not None
    assert found.too_many is too_many


def decided(found: Quarantine) -> Decision:
    history = History(
        conclusion=found,
        stages=RunPlan.requested(SPEC).stages,
        candidates=[
            RollbackCandidate(iteration=at, updates=at, best=False, healthy=False) for at in (100, 200, 231, 300)
        ],
    )
    ending = Ending(outcome=Outcome.STOPPED, reason=Reason.NOT_FINITE, detail="train.jsonl:17: made the loss nan twice")
    return after_attempt.decide(ending, spec=SPEC, history=history, now=5.0, jitter=0.0)


def test_run_continues_from_rollback_point() -> None:
    decision = decided(Quarantine(rows=(16,), lines=("train.jsonl:17",), iteration=250, too_many=False))
    assert (decision.status, decision.back_to) == (Status.WAITING, 200)
    assert decision.stage is not None
    assert (decision.stage.quarantined, decision.stage.first_example, decision.stage.rollback) == ((16,), 800, 0)


def test_too_many_rows_fail_the_job() -> None:
    lines = ("train.jsonl:17", "train.jsonl:18")
    decision = decided(Quarantine(rows=(16, 17), lines=lines, iteration=250, too_many=True))
    assert (decision.status, decision.reason) == (Status.FAILED, Reason.DATA_INVALID)
    assert decision.evidence["rows"] == ["train.jsonl:17", "train.jsonl:18"]


def test_earlier_quarantine_is_kept() -> None:
    first = stage_without(
        Quarantine(rows=(9,), lines=("a:10",), iteration=5, too_many=False),
        RunPlan.requested(SPEC).stages[0],
        stages=RunPlan.requested(SPEC).stages,
        first_example=0,
        updates=0,
    )
    second = stage_without(
        Quarantine(rows=(3,), lines=("a:4",), iteration=9, too_many=False),
        first,
        stages=[first],
        first_example=400,
        updates=100,
    )
    assert (second.quarantined, second.salt, second.because) == ((3, 9), 2, "quarantined: a:4")
