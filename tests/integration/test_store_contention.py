"""Many processes write to one store: none is refused, no job is claimed twice, a kill leaves no partial change.

The processes run this file with the name of a role: `python -m tests.integration.test_store_contention ROLE DB`.
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
    """Return the identity of this process."""
    return ProcessIdentity(pid=os.getpid(), create_time=1.0, boot_id="b")


def submit(store: Store) -> int:
    """Queue a job."""
    return store.jobs.submit(
        name="n", priority=0, iters=10, spec_json="{}", prepare=lambda i: Path(f"/{i}"), now=1.0
    ).id


def run_one_job(store: Store) -> int | None:
    """Run a job from its claim to its end, with an event, an incident and a message; return its id."""
    job = store.leases.claim(me(), 2.0)
    if job is None:
        return None
    attempt = store.attempts.begin(job.id, owner=me(), now=3.0)
    data = {"iteration": 10, "losses": [1.0] * 10}
    event = Event(seq=1, time=4.0, awake=4.0, attempt=1, kind=Kind.PROGRESS, data=data)
    store.events.ingest(job.id, [event], offset_before=0, offset_after=9, steps_per_report=10, now=4.0)
    store.leases.heartbeat(job.id, me(), 5.0)
    store.attempts.end(attempt.id, ending=DONE, exit_code=0, signal=None, now=6.0)
    message = NewMessage(job_id=job.id, event="finished", key=f"{job.id}", title="T", body="B")
    incident = Incident(job_id=job.id, attempt=1, time=6.0, code="c", text="t", evidence={})
    store.leases.settle(job.id, SUCCEEDED, owner=me(), now=6.0, incidents=[incident], messages=[message])
    return job.id


def claims(store: Store) -> None:
    """Claim until nothing is left; print each id."""
    while (job := store.leases.claim(me(), 2.0)) is not None:
        print(job.id, flush=True)  # noqa: T201 (the test reads it)


def writes(store: Store) -> None:
    """Submit, run and list jobs for some seconds; print the id of each ended job."""
    until = time.monotonic() + WRITING_S
    while time.monotonic() < until:
        submit(store)
        print(run_one_job(store), flush=True)  # noqa: T201
        store.jobs.overview()


def writes_until_killed(store: Store) -> None:
    """Submit and run jobs; print the id of each ended job."""
    while True:
        submit(store)
        print(run_one_job(store), flush=True)  # noqa: T201


ROLES: dict[str, Callable[[Store], None]] = {role.__name__: role for role in (claims, writes, writes_until_killed)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a new store."""
    path = tmp_path / "lq.db"
    Store.open(path).close()
    return path


@contextlib.contextmanager
def playing(role: Callable[[Store], None], path: Path, number: int) -> Iterator[list[subprocess.Popen[str]]]:
    """Start processes with a role, let them begin at the same moment, and kill them at the end."""
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


def printed_ids(processes: list[subprocess.Popen[str]]) -> list[list[int]]:
    """Wait for the processes to exit without an error; return the ids that each of them printed."""
    ids = []
    for process in processes:
        output, errors = process.communicate(timeout=90)
        assert (process.returncode, errors) == (0, "")
        ids.append([int(line) for line in output.split() if line != "None"])
    return ids


def test_each_job_is_claimed_once(path: Path) -> None:
    with Store.open(path) as store:
        submitted = [submit(store) for _ in range(40)]
    with playing(claims, path, PROCESSES) as processes:
        claimed = {process.pid: ids for process, ids in zip(processes, printed_ids(processes), strict=True)}
    assert sorted(job_id for ids in claimed.values() for job_id in ids) == submitted
    with Store.open(path) as store:
        owners = {job.id: job.owner.pid for job in store.jobs.running() if job.owner}
    assert owners == {job_id: pid for pid, ids in claimed.items() for job_id in ids}


def test_concurrent_writers_are_not_refused(path: Path) -> None:
    with playing(writes, path, PROCESSES) as processes:
        ended = [job_id for ids in printed_ids(processes) for job_id in ids]
    assert len(ended) == len(set(ended)) > PROCESSES
    with Store.open(path) as store:
        store.check()
        assert {job.id for job in store.jobs.overview(all_jobs=True) if job.status is Status.SUCCEEDED} == set(ended)
        assert {message.job_id for message in store.outbox.messages()} == set(ended)


def test_killed_writer_leaves_no_half_change(path: Path) -> None:
    acknowledged: set[int] = set()
    for lines in range(1, 7):
        with playing(writes_until_killed, path, 1) as [process]:
            assert process.stdout is not None
            acknowledged |= {int(process.stdout.readline()) for _ in range(lines)}
            process.kill()
            acknowledged |= {int(line) for line in process.stdout if line.endswith("\n")}
    with Store.open(path) as store:
        store.check()
        every = store.jobs.overview(all_jobs=True)
        succeeded = {job.id for job in every if job.status is Status.SUCCEEDED}
        # each process may have settled its last job and been killed before it printed the id
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
