"""Many processes on one store: nobody is refused, nothing is claimed twice, a kill leaves no half of a change.

The processes are this file, run with the name of a role: `python -m tests.integration.test_store_contention ROLE DB`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.model.events import Event, Kind
from jobs.model.job import Incident, NewMessage, ProcessIdentity
from jobs.model.outcomes import Ending, Outcome, Reason
from jobs.model.states import Status
from jobs.policies.decision import Decision
from orchestrator.store.store import Store

PROCESSES = 8
WRITING_S = 3.0
ROOT = Path(__file__).parents[2]

DONE = Ending(outcome=Outcome.DONE, reason=Reason.COMPLETED, detail="done")
SUCCEEDED = Decision(status=Status.SUCCEEDED, reason=Reason.COMPLETED, detail="done")


def me() -> ProcessIdentity:
    """Name the process that asks, as far as the store cares."""
    return ProcessIdentity(pid=os.getpid(), create_time=1.0, boot_id="b")


def submit(store: Store) -> int:
    """Queue a job."""
    return store.jobs.submit(
        name="n", priority=0, iters=10, spec_json="{}", prepare=lambda i: Path(f"/{i}"), now=1.0
    ).id


def whole_life(store: Store) -> int | None:
    """Take a job from its claim to its end, telling about it; return its id."""
    job = store.leases.claim(me(), 2.0)
    if job is None:
        return None
    attempt = store.attempts.begin(job.id, owner=me(), now=3.0)
    data = {"iteration": 10, "losses": [1.0] * 10}
    event = Event(seq=1, time=4.0, awake=4.0, attempt=1, kind=Kind.PROGRESS, data=data)
    store.events.ingest(job.id, [event], offset_before=0, offset_after=9, steps_per_report=10, now=4.0)
    store.leases.heartbeat(job.id, me(), 5.0)
    store.attempts.end(attempt.id, ending=DONE, exit_code=0, signal=None, now=6.0)
    told = NewMessage(job_id=job.id, event="finished", key=f"{job.id}", title="T", body="B")
    seen = Incident(job_id=job.id, attempt=1, time=6.0, code="c", text="t", evidence={})
    store.leases.settle(job.id, SUCCEEDED, owner=me(), now=6.0, incidents=[seen], messages=[told])
    return job.id


def claims(store: Store) -> None:
    """Claim until nothing is left; print each id."""
    while (job := store.leases.claim(me(), 2.0)) is not None:
        print(job.id, flush=True)  # noqa: T201 (the answer to the test)


def writes(store: Store) -> None:
    """Submit, work and read for a while; print the ids of the jobs that were ended."""
    until = time.monotonic() + WRITING_S
    while time.monotonic() < until:
        submit(store)
        print(whole_life(store), flush=True)  # noqa: T201
        store.jobs.overview()


def writes_for_ever(store: Store) -> None:
    """Submit and work; print the id of each job that was ended."""
    while True:
        submit(store)
        print(whole_life(store), flush=True)  # noqa: T201


ROLES: dict[str, Callable[[Store], None]] = {role.__name__: role for role in (claims, writes, writes_for_ever)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A new store's file."""
    path = tmp_path / "lq.db"
    Store.open(path).close()
    return path


@contextlib.contextmanager
def playing(role: Callable[[Store], None], path: Path, number: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Start processes that play a role, all from the same moment on; they are gone afterwards."""
    command = [sys.executable, "-m", __name__, role.__name__, str(path)]
    with contextlib.ExitStack() as stack:
        processes = []
        for _ in range(number):
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            processes.append(stack.enter_context(process))
            stack.callback(process.kill)
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        yield processes


def answers(processes: list[subprocess.Popen[str]]) -> list[list[int]]:
    """Wait for the processes; return the ids each of them printed. None may have complained."""
    found = []
    for process in processes:
        output, complaint = process.communicate(timeout=90)
        assert (process.returncode, complaint) == (0, "")
        found.append([int(line) for line in output.split() if line != "None"])
    return found


def test_every_job_is_claimed_by_exactly_one_worker(path: Path) -> None:
    with Store.open(path) as store:
        ids = [submit(store) for _ in range(40)]
    with playing(claims, path, PROCESSES) as processes:
        claimed = {process.pid: found for process, found in zip(processes, answers(processes), strict=True)}
    assert sorted(job_id for found in claimed.values() for job_id in found) == ids
    with Store.open(path) as store:
        owners = {job.id: job.owner.pid for job in store.jobs.running() if job.owner}
    assert owners == {job_id: pid for pid, found in claimed.items() for job_id in found}


def test_processes_that_write_at_once_are_never_refused(path: Path) -> None:
    with playing(writes, path, PROCESSES) as processes:
        ended = [job_id for found in answers(processes) for job_id in found]
    assert len(ended) == len(set(ended)) > PROCESSES
    with Store.open(path) as store:
        store.check()
        assert {job.id for job in store.jobs.overview(all_jobs=True) if job.status is Status.SUCCEEDED} == set(ended)
        assert {message.job_id for message in store.outbox.messages()} == set(ended)


def test_a_writer_killed_at_any_moment_leaves_no_half_of_a_change(path: Path) -> None:
    acknowledged: set[int] = set()
    for lines in range(1, 7):
        with playing(writes_for_ever, path, 1) as [process]:
            assert process.stdout is not None
            acknowledged |= {int(process.stdout.readline()) for _ in range(lines)}
            process.kill()
            acknowledged |= {int(line) for line in process.stdout if line.endswith("\n")}
    with Store.open(path) as store:
        store.check()
        every = store.jobs.overview(all_jobs=True)
        succeeded = {job.id for job in every if job.status is Status.SUCCEEDED}
        # the last job of each life may have been settled without a word about it
        assert acknowledged <= succeeded
        assert len(succeeded - acknowledged) <= 6
        assert {message.job_id for message in store.outbox.messages()} == succeeded
        assert all(bool(store.incidents.of(job.id)) == (job.id in succeeded) for job in every)
        assert all(job.job_dir == f"/{job.id}" for job in every)
        assert all(job.iteration == 10 * len(store.metrics.points(job.id)) for job in every)


if __name__ == "__main__":
    with Store.open(Path(sys.argv[2])) as opened:
        print("ready", flush=True)  # noqa: T201
        sys.stdin.readline()
        ROLES[sys.argv[1]](opened)
