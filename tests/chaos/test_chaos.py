"""The short run of the chaos test: every kind of fault once, several in each round."""

from __future__ import annotations

import pytest

from tests.chaos.campaign import run_campaign
from tests.chaos.schedule import Kind, dense, plans
from tests.chaos.summary import summary

SEED = 1
ITERATIONS = 40

ROUNDS = (
    (Kind.DOUBLED_WAKEUP, Kind.TERM_TRAINER, Kind.TORN_LINE),
    (Kind.KILL_SUBMIT, Kind.STOP_TRAINER, Kind.KILL_BOTH),
    (Kind.LOST_WAKEUP, Kind.SECOND_WORKER, Kind.CUT_CHECKPOINT),
    (Kind.KILL_WORKER, Kind.KILL_STATUS, Kind.FLIP_BYTE),
    (Kind.FULL_DISK, Kind.KILL_RETRY, Kind.KILL_TRAINER),
)
"""No round has two crashes of one cause: the second one has a backoff of ten seconds."""


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.timeout(600)
def test_faults_lose_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert {kind for kinds in ROUNDS for kind in kinds} == set(Kind)
    result = run_campaign(dense(SEED, ROUNDS), iters=ITERATIONS, dry_runs=1, say=print)
    print(summary(result, seed=SEED, command="make test"))  # noqa: T201 shown on failure
    assert result.passed, capsys.readouterr().out
    assert len(result.rounds) == len(ROUNDS)


def test_seed_determines_rounds() -> None:
    assert plans(7, 200)[:20] == plans(7, 20)
    assert plans(7, 20) != plans(8, 20)
    assert {act.kind for plan in plans(7, 15) for act in plan.acts} == set(Kind)
