"""What becomes of a job when an attempt has ended."""

from __future__ import annotations

import pytest

from jobs.outcomes import Ending, Outcome, Reason
from jobs.policy import WISHES, Decision, Wish, decide, wish_from
from jobs.states import LEGAL, Status

ENDINGS = {
    Outcome.DONE: Ending(outcome=Outcome.DONE, reason=Reason.COMPLETED, detail="trained to its last iteration"),
    Outcome.STOPPED: Ending(outcome=Outcome.STOPPED, reason=Reason.STOPPED_BY_USER, detail="stopped on request"),
    Outcome.DIED: Ending(outcome=Outcome.DIED, reason=Reason.KILLED, detail="ended by SIGKILL"),
    Outcome.REFUSED: Ending(outcome=Outcome.REFUSED, reason=Reason.DATA_INVALID, detail="train.jsonl: changed"),
}


def decision(outcome: Outcome, wish: Wish | None, *, progress: list[int], max_restarts: int = 5) -> Decision:
    return decide(ENDINGS[outcome], wish=wish, progress=progress, max_restarts=max_restarts, now=1000.0, jitter=0.0)


@pytest.mark.parametrize(
    ("outcome", "wish", "status", "reason"),
    [
        # done is done, whatever was asked meanwhile
        (Outcome.DONE, None, Status.SUCCEEDED, Reason.COMPLETED),
        (Outcome.DONE, "cancel", Status.SUCCEEDED, Reason.COMPLETED),
        (Outcome.DONE, "pause", Status.SUCCEEDED, Reason.COMPLETED),
        (Outcome.DONE, "worker_stop", Status.SUCCEEDED, Reason.COMPLETED),
        # a cancelled job never comes back by itself
        (Outcome.STOPPED, "cancel", Status.CANCELLED, Reason.STOPPED_BY_USER),
        (Outcome.DIED, "cancel", Status.CANCELLED, Reason.STOPPED_BY_USER),
        (Outcome.REFUSED, "cancel", Status.CANCELLED, Reason.STOPPED_BY_USER),
        # what would happen again is not tried again
        (Outcome.REFUSED, None, Status.FAILED, Reason.DATA_INVALID),
        (Outcome.REFUSED, "pause", Status.FAILED, Reason.DATA_INVALID),
        (Outcome.REFUSED, "worker_stop", Status.FAILED, Reason.DATA_INVALID),
        # who asks for a pause gets one, even if the trainer died on the way
        (Outcome.STOPPED, "pause", Status.PAUSED, Reason.STOPPED_BY_USER),
        (Outcome.STOPPED, "worker_stop", Status.PAUSED, Reason.STOPPED_BY_USER),
        (Outcome.DIED, "pause", Status.PAUSED, Reason.STOPPED_BY_USER),
        (Outcome.DIED, "worker_stop", Status.PAUSED, Reason.STOPPED_BY_USER),
        # nobody of ours asked: go on
        (Outcome.STOPPED, None, Status.WAITING, Reason.STOPPED_BY_USER),
        (Outcome.DIED, None, Status.WAITING, Reason.KILLED),
    ],
)
def test_what_becomes_of_a_job(outcome: Outcome, wish: Wish | None, status: Status, reason: Reason) -> None:
    found = decision(outcome, wish, progress=[0] if outcome is Outcome.DIED else [])
    assert (found.status, found.reason) == (status, reason)
    assert found.status in LEGAL[Status.RUNNING]
    assert (found.not_before is not None) == (found.status is Status.WAITING)
    assert found.detail
    assert "\n" not in found.detail


def test_the_first_death_is_answered_at_once_and_the_second_after_ten_seconds() -> None:
    assert decision(Outcome.DIED, None, progress=[30]).not_before == 1000.0
    assert decision(Outcome.DIED, None, progress=[30, 5]).not_before == 1010.0


def test_a_term_from_outside_costs_no_restart() -> None:
    found = decision(Outcome.STOPPED, None, progress=[0] * 50, max_restarts=0)
    assert (found.status, found.not_before) == (Status.WAITING, 1000.0)


def test_a_job_that_keeps_dying_is_given_up_with_the_numbers() -> None:
    found = decision(Outcome.DIED, None, progress=[0, 3, 0], max_restarts=2)
    assert (found.status, found.reason, found.not_before) == (Status.FAILED, Reason.KILLED, None)
    assert found.detail.startswith("ended by SIGKILL; died 3 times without 200 new iterations")
    assert found.evidence == {
        "reason": "killed",
        "deaths_in_a_row": 3,
        "max_restarts": 2,
        "new_iterations": 0,
        "delay_s": 20.0,
    }


def test_a_death_after_a_good_stretch_is_no_reason_to_give_up() -> None:
    found = decision(Outcome.DIED, None, progress=[0, 3, 500], max_restarts=2)
    assert (found.status, found.not_before) == (Status.WAITING, 1000.0)
    assert found.evidence["deaths_in_a_row"] == 1


def test_the_detail_says_who_paused_it() -> None:
    assert "user" in decision(Outcome.STOPPED, "pause", progress=[]).detail
    assert "worker" in decision(Outcome.STOPPED, "worker_stop", progress=[]).detail


def test_a_wish_is_read_as_the_store_keeps_it() -> None:
    assert [wish_from(wish) for wish in WISHES] == list(WISHES)
    assert wish_from(None) is None
    assert wish_from("a good night") is None
