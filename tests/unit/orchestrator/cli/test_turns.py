"""pause, resume, hold, release and cancel of a job in every state: once, twice, and from two terminals at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.model.outcomes import Reason
from jobs.model.states import Status
from tests.harness import InProcess, Lq
from tests.unit.orchestrator.cli_homes import Home


def job_that_is(home: Home, status: Status) -> int:
    """Bring a job into a state."""
    if status is Status.QUEUED:
        return home.queued().id
    if status is Status.RUNNING:
        return home.running().id
    if status is Status.CANCELLED:
        return home.cancelled().id
    if status is Status.HELD:
        return home.store.jobs.hold(home.queued().id, "held by the user", 1.0).id
    return home.ended(status, Reason.KILLED).id


STATES = tuple(Status[name] for name in ("HELD", "QUEUED", "WAITING", "PAUSED", "SUCCEEDED", "FAILED", "CANCELLED"))
"""Every state a job can be in while no worker runs, but `running`."""

REFUSED = "refused"

WANTED: dict[str, dict[Status, Status | str]] = {
    "pause": {
        Status.HELD: Status.HELD,
        Status.QUEUED: Status.HELD,
        Status.WAITING: Status.HELD,
        Status.PAUSED: Status.PAUSED,
    },
    "hold": {Status.HELD: Status.HELD, Status.QUEUED: Status.HELD, Status.WAITING: Status.HELD},
    "resume": {
        Status.HELD: Status.QUEUED,
        Status.QUEUED: Status.QUEUED,
        Status.WAITING: Status.QUEUED,
        Status.PAUSED: Status.QUEUED,
    },
    "cancel": dict.fromkeys((Status.HELD, Status.QUEUED, Status.WAITING, Status.PAUSED), Status.CANCELLED),
}
WANTED["release"] = WANTED["resume"]
CASES = [(verb, status, WANTED[verb].get(status, REFUSED)) for verb in WANTED for status in STATES]


def twice_at_once(home: Home, *words: str | int, expect: int = 0) -> None:
    """Type a command in two terminals."""
    with ThreadPoolExecutor(2) as terminals:
        list(terminals.map(lambda _: Lq(home.path)(*words, expect=expect), range(2)))


@pytest.mark.parametrize(("verb", "status", "wanted"), CASES)
def test_what_a_verb_does_to_a_job_once_and_again(
    here: InProcess, home: Home, verb: str, status: Status, wanted: Status | str
) -> None:
    job_id = job_that_is(home, status)
    first = here(verb, job_id, expect=5 if wanted == REFUSED else 0)
    after = home.store.jobs.get(job_id)
    assert after.status == (status if wanted == REFUSED else wanted)
    if wanted == REFUSED:
        assert first.out == ""
        assert first.err.startswith(f"lq: job {job_id} ")
        assert first.err.count("\n") == 1
        return
    assert f"job {job_id}" in first.out
    again = here(verb, job_id, expect=5 if verb == "cancel" else 0)
    assert home.store.jobs.get(job_id) == after, "the second time changes nothing"
    assert ("already" in again.out) or verb == "cancel"


def test_a_job_whose_worker_is_gone_stays_asked_until_one_comes(here: InProcess, home: Home) -> None:
    job_id = home.running().id
    assert f"job {job_id} is cancelled as soon as a worker runs" in here("cancel", job_id).out
    job = home.store.jobs.get(job_id)
    assert (job.status, job.stop_request) == (Status.RUNNING, "cancel")


def test_a_running_job_is_neither_held_nor_released(here: InProcess, home: Home) -> None:
    job_id = home.running().id
    assert "stop it for now with: lq pause" in here("hold", job_id, expect=5).err
    for verb in ("resume", "release"):
        assert f"job {job_id} is running already" in here(verb, job_id).out
    assert (home.store.jobs.get(job_id).status, home.store.jobs.get(job_id).stop_request) == (Status.RUNNING, None)


@pytest.mark.parametrize(
    ("verb", "status", "wanted"),
    [
        ("hold", Status.QUEUED, Status.HELD),
        ("release", Status.HELD, Status.QUEUED),
        ("resume", Status.PAUSED, Status.QUEUED),
    ],
)
def test_two_terminals_at_once_do_it_once(home: Home, verb: str, status: Status, wanted: Status) -> None:
    job_id = job_that_is(home, status)
    twice_at_once(home, verb, job_id)
    assert home.store.jobs.get(job_id).status == wanted


def test_the_queue_is_paused_and_resumed_and_saying_it_twice_changes_nothing(home: Home) -> None:
    lq = InProcess(home.path)
    job_id = home.queued().id
    assert lq("pause", "--queue").out == "queue paused; jobs that run go on\n"
    since = home.store.queue.state()
    assert lq("pause", "--queue").out == "the queue is paused already\n"
    assert home.store.queue.state() == since
    said = lq("status").out
    assert "queue: paused since" in said
    assert "lq resume --queue" in said
    assert home.store.jobs.get(job_id).status is Status.QUEUED
    assert "queue resumed" in lq("resume", "--queue").out
    assert "the queue is not paused" in lq("resume", "--queue").out
    assert lq.json("status")["queue"] == {"paused": False, "because": None}


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_it_must_be_said_what_is_meant(here: InProcess, verb: str) -> None:
    assert "name a job, or --queue" in here(verb, expect=2).err


@pytest.mark.parametrize("verb", ["pause", "resume", "hold", "release", "cancel"])
def test_a_job_nobody_knows_stops_the_others_from_being_touched(here: InProcess, home: Home, verb: str) -> None:
    job_id = home.queued().id
    here(verb, job_id, 99, expect=3)
    assert home.store.jobs.get(job_id).status is Status.QUEUED
