"""`lq dismiss`: which jobs it takes off the status view and the digest, and what remains of them."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.model.outcomes import Reason
from jobs.model.states import Status
from tests.harness import InProcess
from tests.unit.orchestrator.cli_homes import Home, one_of_each


def shown(here: InProcess, *options: str) -> set[int]:
    """Return the ids in the status view."""
    return {job["id"] for job in here.json("status", *options)["jobs"]}


def test_dismissed_job_leaves_the_view(home: Home, here: InProcess) -> None:
    failed, other = (home.ended(Status.FAILED, Reason.CRASHED, "exit code 1", name=name).id for name in "ab")
    assert "exit code 1" in here("status").out
    assert here("dismiss", failed, "-q").out == f"{failed}\n"
    assert shown(here) == {other}
    assert shown(here, "--all") == {failed, other}
    here("dismiss", "--failed")
    assert shown(here) == set()
    assert "exit code 1" not in here("status", "--all").out
    here("dismiss", failed)
    here("dismiss", "--failed", expect=5)


def test_dismissal_is_recorded_until_retry(home: Home, here: InProcess) -> None:
    job = home.ended(Status.FAILED, Reason.CRASHED)
    here("dismiss", job.id)
    first = dismissed_at(here, job.id)
    assert first is not None
    here("dismiss", job.id)
    assert dismissed_at(here, job.id) == first
    assert "dismissed" in here("show", job.id).out
    here.settings(autostart=False)
    here("retry", job.id)
    assert dismissed_at(here, job.id) is None
    assert shown(here) == {job.id}


def dismissed_at(here: InProcess, job_id: int) -> Any:
    """Return when a job was dismissed."""
    return here.json("show", job_id)["job"]["dismissed_at"]


@pytest.mark.parametrize("status", [Status.QUEUED, Status.RUNNING, Status.PAUSED, Status.SUCCEEDED])
def test_only_lost_jobs_are_dismissed(home: Home, here: InProcess, status: Status) -> None:
    ids = one_of_each(home)
    assert f"job {ids[status]}" in here("dismiss", ids[status], expect=5).err
    assert ids[status] in shown(here)
