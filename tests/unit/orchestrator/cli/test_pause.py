"""pause, resume and cancel of a job in every status: once, twice, and from two terminals at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.model.outcomes import Reason
from jobs.model.states import Status
from tests.harness import InProcess, Lq
from tests.unit.orchestrator.cli_homes import Home


def job_with(home: Home, status: Status) -> int:
    """Add a job with a status and return its id."""
    if status is Status.QUEUED:
        return home.queued().id
    if status is Status.RUNNING:
        return home.running().id
    if status is Status.CANCELLED:
        return home.cancelled().id
    if status is Status.HELD:
        return home.store.jobs.hold(home.queued().id, "held by the user", 1.0).id
    return home.ended(status, Reason.KILLED).id


LIVE = (Status.HELD, Status.QUEUED, Status.WAITING, Status.PAUSED)
ENDED = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)
AFTER: dict[str, dict[Status, Status]] = {
    "pause": dict.fromkeys(LIVE, Status.HELD) | {Status.PAUSED: Status.PAUSED},
    "resume": dict.fromkeys(LIVE, Status.QUEUED),
    "cancel": dict.fromkeys(LIVE, Status.CANCELLED),
}


@pytest.mark.parametrize(("verb", "status"), [(verb, status) for verb in AFTER for status in LIVE])
def test_verb_changes_a_job_only_once(here: InProcess, home: Home, verb: str, status: Status) -> None:
    job_id = job_with(home, status)
    here(verb, job_id)
    after = home.store.jobs.get(job_id)
    assert after.status == AFTER[verb][status]
    here(verb, job_id, expect=5 if verb == "cancel" else 0)
    assert home.store.jobs.get(job_id) == after


@pytest.mark.parametrize(("verb", "status"), [(verb, status) for verb in AFTER for status in ENDED])
def test_ended_jobs_are_refused(here: InProcess, home: Home, verb: str, status: Status) -> None:
    job_id = job_with(home, status)
    refused = here(verb, job_id, expect=5)
    assert (refused.out, refused.err.count("\n")) == ("", 1)
    assert f"job {job_id} " in refused.err
    assert home.store.jobs.get(job_id).status is status


def test_cancel_waits_for_a_worker(here: InProcess, home: Home) -> None:
    job_id = home.running().id
    here("cancel", job_id)
    job = home.store.jobs.get(job_id)
    assert (job.status, job.stop_request) == (Status.RUNNING, "cancel")


def test_resume_leaves_a_running_job(here: InProcess, home: Home) -> None:
    job_id = home.running().id
    here("resume", job_id)
    assert (home.store.jobs.get(job_id).status, home.store.jobs.get(job_id).stop_request) == (Status.RUNNING, None)


@pytest.mark.parametrize(("verb", "status"), [("pause", Status.QUEUED), ("resume", Status.HELD)])
def test_two_terminals_change_it_once(home: Home, verb: str, status: Status) -> None:
    job_id = job_with(home, status)
    with ThreadPoolExecutor(2) as terminals:
        list(terminals.map(lambda _: Lq(home.path)(verb, job_id), range(2)))
    assert home.store.jobs.get(job_id).status == AFTER[verb][status]


def test_the_queue_is_paused_only_once(here: InProcess, home: Home) -> None:
    job_id = home.queued().id
    here("pause", "--queue")
    since = home.store.queue.state()
    here("pause", "--queue")
    assert home.store.queue.state() == since
    assert here.json("status")["queue"] == {"paused": True, "because": "paused by the user"}
    assert home.store.jobs.get(job_id).status is Status.QUEUED
    for _ in range(2):
        assert here.json("resume", "--queue")["queue"] == {"paused": False, "because": None}


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_jobs_or_queue_must_be_given(here: InProcess, verb: str) -> None:
    assert "--queue" in here(verb, expect=2).err


@pytest.mark.parametrize("verb", AFTER)
def test_unknown_id_leaves_the_others(here: InProcess, home: Home, verb: str) -> None:
    job_id = home.queued().id
    here(verb, job_id, 99, expect=3)
    assert home.store.jobs.get(job_id).status is Status.QUEUED
