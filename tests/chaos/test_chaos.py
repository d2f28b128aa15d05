"""The short run of the chaos harness: every kind of mishap once, several in each round."""

from __future__ import annotations

import pytest

from tests.chaos.campaign import live_through
from tests.chaos.schedule import Kind, dense, plans
from tests.chaos.table import table

SEED = 1
ITERATIONS = 40

ROUNDS = (
    (Kind.DOUBLED_BELL, Kind.TERM_TRAINER, Kind.TORN_LINE),
    (Kind.KILL_SUBMIT, Kind.STOP_TRAINER, Kind.KILL_BOTH),
    (Kind.LOST_BELL, Kind.SECOND_WORKER, Kind.CUT_CHECKPOINT),
    (Kind.KILL_WORKER, Kind.KILL_STATUS, Kind.FLIP_BYTE),
    (Kind.FULL_DISK, Kind.KILL_RETRY, Kind.KILL_TRAINER),
)
"""No round has two deaths of one cause, whose second would be answered after ten seconds only."""


@pytest.mark.slow
@pytest.mark.longest
@pytest.mark.timeout(600)
def test_whatever_goes_wrong_the_adapter_is_the_same_and_nothing_is_lost_or_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert {kind for kinds in ROUNDS for kind in kinds} == set(Kind)
    result = live_through(dense(SEED, ROUNDS), iters=ITERATIONS, rehearsals=1, say=print)
    print(table(result, seed=SEED, command="make test"))  # noqa: T201 shown where it fails
    assert result.all_well, capsys.readouterr().out
    assert len(result.rounds) == len(ROUNDS)


def test_a_seed_draws_the_same_rounds_however_many_are_asked_for() -> None:
    assert plans(7, 200)[:20] == plans(7, 20)
    assert plans(7, 20) != plans(8, 20)
    assert {act.kind for plan in plans(7, 15) for act in plan.acts} == set(Kind)
