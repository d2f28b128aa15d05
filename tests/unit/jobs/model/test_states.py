"""The legal changes of a job's status."""

from __future__ import annotations

import itertools

import pytest

from jobs.model.errors import NotAllowed
from jobs.model.states import ENDED, LIVE, Status, require_legal

# repeated on purpose, from docs/explanation/architecture.md#states-of-a-job
LEGAL = {
    "held": "queued cancelled",
    "queued": "running held cancelled skipped",
    "running": "waiting paused succeeded failed cancelled held",
    "waiting": "queued cancelled held",
    "paused": "queued cancelled",
    "succeeded": "queued",
    "failed": "queued",
    "cancelled": "queued",
    "skipped": "",
}
PAIRS = list(itertools.product(Status, Status))


def legal(old: Status, new: Status) -> bool:
    return new.value in LEGAL[old.value].split()


@pytest.mark.parametrize(("old", "new"), [pair for pair in PAIRS if legal(*pair)])
def test_legal_change_is_accepted(old: Status, new: Status) -> None:
    require_legal(7, old, new)


@pytest.mark.parametrize(("old", "new"), [pair for pair in PAIRS if not legal(*pair)])
def test_illegal_change_is_refused(old: Status, new: Status) -> None:
    with pytest.raises(NotAllowed, match=f"job 7 is {old} .* {new}"):
        require_legal(7, old, new)


def test_job_is_live_or_ended() -> None:
    assert {*LIVE, *ENDED} == set(Status)
    assert not LIVE & ENDED
    assert {status.value for status in ENDED} == {"succeeded", "failed", "cancelled", "skipped"}


def test_all_but_skipped_jobs_can_requeue() -> None:
    assert {old for old in ENDED if any(legal(old, new) for new in Status)} == ENDED - {Status.SKIPPED}
