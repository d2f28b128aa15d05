"""Every change of state a job may make, and no other one."""

from __future__ import annotations

import itertools

import pytest

from jobs.model.errors import NotAllowed
from jobs.model.states import ENDED, LIVE, Status, require_legal

# written out a second time on purpose, from design.md, "Job states"
LEGAL = {
    "held": "queued cancelled",
    "queued": "running held cancelled skipped",
    "running": "waiting paused succeeded failed cancelled held",
    "waiting": "queued cancelled held",
    "paused": "queued cancelled",
    "succeeded": "",
    "failed": "queued",
    "cancelled": "queued",
    "skipped": "",
}
PAIRS = list(itertools.product(Status, Status))


def legal(old: Status, new: Status) -> bool:
    return new.value in LEGAL[old.value].split()


@pytest.mark.parametrize(("old", "new"), [pair for pair in PAIRS if legal(*pair)])
def test_a_legal_change_goes_through(old: Status, new: Status) -> None:
    require_legal(7, old, new)


@pytest.mark.parametrize(("old", "new"), [pair for pair in PAIRS if not legal(*pair)])
def test_any_other_change_is_refused_and_says_which(old: Status, new: Status) -> None:
    with pytest.raises(NotAllowed) as caught:
        require_legal(7, old, new)
    assert str(caught.value) == f"job 7 is {old} and cannot become {new}; see: lq show 7"


def test_a_job_is_either_live_or_ended() -> None:
    assert {*LIVE, *ENDED} == set(Status)
    assert not LIVE & ENDED
    assert {status.value for status in ENDED} == {"succeeded", "failed", "cancelled", "skipped"}


def test_only_a_failed_or_cancelled_job_comes_back() -> None:
    assert {old for old in ENDED if any(legal(old, new) for new in Status)} == {Status.FAILED, Status.CANCELLED}
